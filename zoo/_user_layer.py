"""Support for a user's recurrent layer in `create_model`, with checks of its interface."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._typing import LayerFactory, Tensor

# Layer arguments that `create_model` sets, so that a user must not pass them.
SET_BY_CREATE_MODEL = frozenset(
    {"units", "name", "return_sequences", "return_state", "go_backwards"}
)


def user_info(layer: LayerFactory) -> ModelInfo:
    """Return an entry for a user's layer, named after the layer in snake case, without defaults.

    Raises:
        TypeError: if `layer` is a layer instance, a cell, or not callable.
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
        equations="",
        gradient_property="",
        initialization="",
        layer=f"{getattr(layer, '__module__', '')}:{name}",
        layer_name=name,
    )


def user_arguments(options: ModelOptions) -> dict[str, Any]:
    """Return `units` and the given arguments among dropout, recurrent_dropout and stateful.

    Raises:
        TypeError: if `layer_options` has an argument that `create_model` sets.
    """
    taken = sorted(SET_BY_CREATE_MODEL & set(options.layer_options))
    if taken:
        raise TypeError(
            f"`create_model` sets the arguments {', '.join(sorted(SET_BY_CREATE_MODEL))} of its "
            f"layers. Remove them. Received: {', '.join(taken)}"
        )
    asked = {name: getattr(options, name) for name in ("dropout", "recurrent_dropout", "stateful")}
    chosen = {name: value for name, value in asked.items() if value}
    return {"units": options.units, **chosen}


def make_user_layer(make: LayerFactory, arguments: Mapping[str, Any]) -> keras.layers.Layer:
    """Create the user's layer with the given arguments.

    Raises:
        TypeError: if `make` does not take the arguments, or if it does not return a recurrent
            layer with the given name.
    """
    parameters = inspect.signature(make).parameters
    if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
        missing = [name for name in arguments if name not in parameters]
        if missing:
            raise TypeError(
                f"`layer` must take the arguments {', '.join(arguments)}, but it has no "
                f"{', '.join(missing)}. Received: layer={make!r}"
            )
    layer = make(**arguments)
    is_cell = hasattr(layer, "state_size") and not isinstance(layer, keras.layers.RNN)
    if not isinstance(layer, keras.layers.Layer) or is_cell:
        raise TypeError(
            f"`layer` must return a recurrent layer, but it returned {layer!r}. Wrap a cell in "
            f"`keras.layers.RNN`. Received: layer={make!r}"
        )
    if layer.name != arguments["name"]:
        raise TypeError(
            "`layer` must pass `name` to the layer that it creates. The name should be "
            f"{arguments['name']!r}, but it is {layer.name!r}. Received: layer={make!r}"
        )
    return layer


def check_config(make: LayerFactory, layer: keras.layers.Layer, options: Iterable[str]) -> None:
    """Raise ValueError if the config of a user's layer lacks an argument that it was created with.

    `seed` and `bidirectional` rebuild the layer from its config and would lose the argument.
    """
    lost = set(options) - set(layer.get_config()) if isinstance(make, type) else set()
    if lost:
        raise ValueError(
            "`seed` and `bidirectional` rebuild the layer from its config, as loading a model "
            f"does. `{type(layer).__name__}.get_config` must return {', '.join(sorted(lost))} too. "
            f"Received: layer={make!r}"
        )


def known_to_keras(layer: keras.layers.Layer) -> keras.saving.custom_object_scope:
    """Return a scope in which Keras can build the layer from its config without registration."""
    classes = [type(layer), *([type(layer.cell)] if hasattr(layer, "cell") else [])]
    return keras.saving.custom_object_scope({each.__name__: each for each in classes})


def check_two_directions(layer: keras.layers.Layer) -> None:
    """Raise ValueError if `keras.layers.Bidirectional` cannot wrap the layer."""
    needed = ("go_backwards", "return_sequences", "return_state", "stateful")
    missing = [name for name in needed if not hasattr(layer, name)]
    if missing:
        raise ValueError(
            "`bidirectional` needs a layer with the attributes of `keras.layers.RNN`, but "
            f"{type(layer).__name__} has no {', '.join(missing)}. Received: bidirectional=True"
        )


def check_outputs(outputs: Tensor, options: ModelOptions, *, return_sequences: bool) -> None:
    """Raise ValueError unless the outputs are one vector per step, or one per sequence."""
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
