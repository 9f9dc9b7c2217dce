"""A user's recurrent layer in place of an entry's, and checks that it fits."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions

# Arguments of the layers that `create_model` chooses.
CHOSEN_HERE = frozenset({"units", "name", "return_sequences", "return_state", "go_backwards"})


def own_info(layer: Callable[..., Any]) -> ModelInfo:
    """An entry for a user's layer: its name in snake case, and no defaults.

    Raises:
        TypeError: a layer instance, a cell, or nothing that can be called.
    """
    is_cell = hasattr(layer, "get_initial_state") and not (
        isinstance(layer, type) and issubclass(layer, keras.layers.RNN)
    )
    if isinstance(layer, keras.layers.Layer) or is_cell or not callable(layer):
        raise TypeError(
            "`layer` must be a layer class or a function that returns a layer, not a layer and "
            "not a cell. Wrap a cell in a `CellLayer` with `cell_class = MyCell`, or in a function "
            f"that returns `keras.layers.RNN(MyCell(units), ...)`. Received: layer={layer!r}"
        )
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", getattr(layer, "__name__", "layer")).lower()
    name = words if words.isidentifier() else "layer"
    return ModelInfo(
        name=name,
        title=f"The user's layer {name}",
        paper="",
        year=0,
        equations="",
        gradient_property="",
        initialization="",
        recipe={},
        layer=f"{getattr(layer, '__module__', '')}:{name}",
        layer_name=name,
    )


def own_arguments(options: ModelOptions) -> dict[str, Any]:
    """Arguments of a user's layer: those of `create_model` that were given.

    Raises:
        TypeError: `layer_options` that `create_model` chooses itself.
    """
    taken = sorted(CHOSEN_HERE & set(options.layer_options))
    if taken:
        raise TypeError(
            "`create_model` chooses the arguments "
            f"{', '.join(sorted(CHOSEN_HERE))} of its layers. Received: {', '.join(taken)}"
        )
    asked = {name: getattr(options, name) for name in ("dropout", "recurrent_dropout", "stateful")}
    chosen = {name: value for name, value in asked.items() if value}
    return {"units": options.units, **chosen}


def make_own_layer(make: Callable[..., Any], arguments: Mapping[str, Any]) -> keras.layers.Layer:
    """The user's layer, created with the arguments.

    Raises:
        TypeError: `make` does not take the arguments, or does not return a layer of that name.
    """
    parameters = inspect.signature(make).parameters
    if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
        missing = [name for name in arguments if name not in parameters]
        if missing:
            raise TypeError(
                f"`layer` must take the arguments {', '.join(arguments)}; it has no "
                f"{', '.join(missing)}. Received: layer={make!r}"
            )
    layer = make(**arguments)
    is_cell = hasattr(layer, "state_size") and not isinstance(layer, keras.layers.RNN)
    if not isinstance(layer, keras.layers.Layer) or is_cell:
        raise TypeError(
            f"`layer` must return a recurrent layer; it returned {layer!r}. Wrap a cell in "
            f"`keras.layers.RNN`. Received: layer={make!r}"
        )
    if layer.name != arguments["name"]:
        raise TypeError(
            f"`layer` must pass `name` on to the layer: the name {arguments['name']!r} was asked "
            f"for, and the layer is called {layer.name!r}. Received: layer={make!r}"
        )
    return layer


def check_config(
    make: Callable[..., Any], layer: keras.layers.Layer, options: Iterable[str]
) -> None:
    """Refuses a user's layer class whose config lacks an argument that the class was called with.

    `seed` and `bidirectional` build the layer again from its config, and would lose the argument.
    """
    lost = set(options) - set(layer.get_config()) if isinstance(make, type) else set()
    if lost:
        raise ValueError(
            "`seed` and `bidirectional` build the layer from its config, as saving a model does. "
            f"`{type(layer).__name__}.get_config` must return {', '.join(sorted(lost))} as well. "
            f"Received: layer={make!r}"
        )


def known_to_keras(layer: keras.layers.Layer) -> keras.saving.custom_object_scope:
    """A scope in which Keras builds the layer from its config, registered or not."""
    classes = [type(layer), *([type(layer.cell)] if hasattr(layer, "cell") else [])]
    return keras.saving.custom_object_scope({each.__name__: each for each in classes})


def check_two_directions(layer: keras.layers.Layer) -> None:
    """Refuses a layer that `keras.layers.Bidirectional` cannot use."""
    needed = ("go_backwards", "return_sequences", "return_state", "stateful")
    missing = [name for name in needed if not hasattr(layer, name)]
    if missing:
        raise ValueError(
            "`bidirectional` needs a layer with the attributes of `keras.layers.RNN`; "
            f"{type(layer).__name__} has no {', '.join(missing)}. Received: bidirectional=True"
        )


def check_outputs(outputs: Any, options: ModelOptions, *, return_sequences: bool) -> None:
    """Refuses a user's layer whose outputs are not one vector per step, or one per sequence."""
    width = options.units * (2 if options.bidirectional else 1)
    shape = getattr(outputs, "shape", None)
    rank = 3 if return_sequences else 2
    if shape is None or len(shape) != rank or shape[-1] != width:
        wanted = f"[batch, time, {width}]" if return_sequences else f"[batch, {width}]"
        raise ValueError(
            f"With units={options.units}, bidirectional={options.bidirectional} and "
            f"return_sequences={return_sequences}, `layer` must return {wanted}. "
            f"Received: layer={options.layer!r}, which returned {shape or type(outputs).__name__}"
        )
