"""Readable names for the variables of a model."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from gradkeeper.callbacks._keras_private import sublayers
from gradkeeper.callbacks._text import matching


def variable_names(model: keras.Model | None, variables: Sequence[Any]) -> tuple[str, ...]:
    """Return a unique name for each variable: the path of layers from the model to it.

    Example: `encoder/bidirectional/forward_lstm/lstm_cell/recurrent_kernel`. (Keras's own
    `variable.path` omits the models that a layer is nested in.) A shared layer has the first path
    that is found. A variable outside the model has its own path. Equal names get a suffix `_1`,
    `_2`, ...

    Args:
        model: the model; None if there is none.
        variables: Keras or TensorFlow variables.
    """
    paths: dict[int, str] = {}
    if model is not None:
        for path, variable in _walk(model, "", set()):
            paths.setdefault(id(variable), path)
    own = [getattr(v, "path", None) or str(v.name).partition(":")[0] for v in variables]
    return unique_names([paths.get(id(v)) or path for v, path in zip(variables, own, strict=True)])


def names_in_call(
    model: keras.Model | None,
    trained: Sequence[Any],
    variables: Sequence[Any],
    patterns: Sequence[str] = (),
) -> tuple[list[str], tuple[str, ...]]:
    """Return names for the variables of an optimizer call, and the names of all trained variables.

    The names are unique among both. The second result is the order of the columns.

    Args:
        model: the model; None if there is none.
        trained: all trained variables.
        variables: the variables of the call.
        patterns: patterns for layers or variables, of which one must match; empty for all.
    """
    every = list({id(each): each for each in (*trained, *variables)}.values())
    names = dict(zip(map(id, every), variable_names(model, every), strict=True))
    order = [names[id(each)] for each in trained]
    if order and patterns:
        order = [order[i] for i in matching(order, patterns)]
    return [names[id(each)] for each in variables], tuple(order)


def unlisted_variables(model: keras.Model) -> list[Any]:
    """Return the variables in attributes of layers that Keras does not list.

    Examples are the states of `LSTM(stateful=True)` and every `tf.Variable` of a layer. The
    attributes may also be lists, tuples and dicts of variables.
    """
    layers = [layer for _, layer in layer_paths(model)]
    found = [variable for layer in layers for _, variable in _unlisted(layer)]
    return list({id(each): each for each in found}.values())


def layer_paths(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Return all layers inside a model, each with the path of layers from the model to it.

    Example: `encoder/bidirectional/forward_lstm/lstm_cell`. The first entry is the model with its
    own name. A shared layer has the first path that is found.
    """
    found: list[tuple[str, keras.layers.Layer]] = [("", model)]
    visited = {id(model)}
    for path, layer in found:  # grows in the loop
        for each in sublayers(layer):
            if id(each) not in visited:
                visited.add(id(each))
                found.append((f"{path}/{each.name}" if path else each.name, each))
    return [(model.name, model), *found[1:]]


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, with a suffix `_1`, `_2`, ... for names that occurred before."""
    taken = set(names)
    unique: dict[str, None] = {}
    for name in names:
        candidate, number = name, 0
        while candidate in unique or (number and candidate in taken):
            number += 1
            candidate = f"{name}_{number}"
        unique[candidate] = None
    return tuple(unique)


def _walk(
    layer: keras.layers.Layer, prefix: str, visited: set[int]
) -> Iterator[tuple[str, keras.Variable]]:
    visited.add(id(layer))
    inside = sublayers(layer)
    theirs = {id(variable) for each in inside for variable in each.variables}
    for variable in layer.variables:
        if id(variable) not in theirs:
            yield f"{prefix}{variable.name}", variable
    for name, variable in _unlisted(layer):
        yield f"{prefix}{name}", variable
    for each in inside:
        if id(each) not in visited:
            yield from _walk(each, f"{prefix}{each.name}/", visited)


def _unlisted(layer: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """Yield each variable of one layer that Keras does not list, with the attribute's name."""
    listed = [*layer.variables, *layer.metrics_variables]
    known, kinds = {id(variable) for variable in listed}, [keras.Variable]
    if keras.backend.backend() == "tensorflow":  # a Keras variable wraps a TensorFlow variable
        known |= {id(variable.value) for variable in listed}
        kinds.append(sys.modules["tensorflow"].Variable)
    for name, value in vars(layer).items():
        if name.startswith("_self_"):  # TensorFlow's lists of the attributes
            continue
        for variable in instances_in(value, tuple(kinds)):
            if id(variable) not in known:
                yield name, variable


def instances_in(value: Any, kinds: type | tuple[type, ...]) -> Iterator[Any]:
    """Yield the instances of these types in nested lists, tuples and values of dicts."""
    if isinstance(value, kinds):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for each in list(value.values()) if isinstance(value, dict) else value:
            yield from instances_in(each, kinds)
