"""One recurrent layer of a model, and the stack of them."""

import importlib
import inspect
import zlib
from typing import Any

import keras

import gradkeeper.zoo.initializers  # noqa: F401 - entries name them as Keras configs
from gradkeeper.zoo import _checks
from gradkeeper.zoo._masked import passes_masks
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo.layers.cell_layer import CellLayer


def layer_class(info: ModelInfo) -> type[keras.layers.Layer]:
    """The recurrent layer that an entry refers to."""
    module, name = info.layer.split(":")
    found: type[keras.layers.Layer] = getattr(importlib.import_module(module), name)
    return found


def seeded(layer: keras.layers.Layer, seed: int | None) -> keras.layers.Layer:
    """The same unbuilt layer with seeds of its own wherever none is set.

    Each seed follows from `seed`, the layer's name and the option's name: no two weights start
    alike, and adding a layer leaves the others as they were.
    """
    if seed is None:
        return layer
    config = layer.get_config()
    for option, value in config.items():
        own = zlib.crc32(f"{seed}/{layer.name}/{option}".encode()) & 0x7FFFFFFF
        if option == "seed" and value is None:
            config[option] = own
        elif option.endswith("_initializer") and isinstance(value, dict):
            settings = value["config"]
            if settings.get("seed", own) is None:
                settings["seed"] = own
    return type(layer).from_config(config)


def recurrent_layer(
    info: ModelInfo, options: ModelOptions, name: str, **loop: Any
) -> keras.layers.Layer:
    """One recurrent layer, in two directions if asked for; it passes its input's mask on.

    Args:
        loop: `return_sequences`, `return_state`.

    Raises:
        TypeError: `options.layer_options` that the layer does not take.
    """
    layer = _layer(info, options, name, loop)
    # False in Keras's own layers as of Keras 3.16.
    layer.supports_masking = True
    for inner in ("forward_layer", "backward_layer") if options.bidirectional else ():
        getattr(layer, inner).supports_masking = True
    return layer


def _layer(
    info: ModelInfo, options: ModelOptions, name: str, loop: dict[str, Any]
) -> keras.layers.Layer:
    arguments = _layer_arguments(info, options)
    make, both = layer_class(info), keras.layers.Bidirectional
    if options.mask_zero or options.mask_value is not None:
        make, both = passes_masks(make), passes_masks(both)
    forward = make(name=name, **arguments, **loop)
    if not options.bidirectional:
        return seeded(forward, options.seed)
    backward = make(name=f"backward_{name}", go_backwards=True, **arguments, **loop)
    return both(
        seeded(forward, options.seed), backward_layer=seeded(backward, options.seed), name=name
    )


def recurrent_stack(
    x: Any, info: ModelInfo, options: ModelOptions, *, return_sequences: bool
) -> Any:
    """Recurrent layers on top of each other, with LayerNormalization and residual sums if asked.

    Args:
        x: [batch, time, features].
        return_sequences: whether the last layer returns all time steps.

    Returns:
        [batch, time, width] or [batch, width]; width is `units`, twice that if bidirectional.
    """
    for index in range(1, options.num_layers + 1):
        y = recurrent_layer(
            info,
            options,
            f"{info.layer_name}_{index}",
            return_sequences=return_sequences or index < options.num_layers,
        )(x)
        if options.layer_norm:
            y = keras.layers.LayerNormalization(name=f"norm_{index}")(y)
        if options.residual and index > 1:
            y = keras.layers.Add(name=f"residual_{index}")([x, y])
        x = y
    return x


def _layer_arguments(info: ModelInfo, options: ModelOptions) -> dict[str, Any]:
    chosen = {
        name: getattr(options, name)
        for name in ("activation", "recurrent_initializer", "kernel_initializer")
        if getattr(options, name) is not None
    }
    built_here = {"units", "name", "return_sequences", "return_state", "go_backwards"}
    allowed = set(_argument_names(layer_class(info))) - built_here
    unknown = set(options.layer_options) - allowed
    _checks.no_unknown(f"create_model({info.name!r}) passes on to its layers and", unknown, allowed)
    return {
        "units": options.units,
        "dropout": options.dropout,
        "recurrent_dropout": options.recurrent_dropout,
        "stateful": options.stateful,
        **chosen,
        **options.layer_options,
    }


def _argument_names(layer: type[keras.layers.Layer]) -> list[str]:
    if issubclass(layer, CellLayer):
        return layer.option_names()
    parameters = inspect.signature(layer.__init__).parameters
    return [name for name in parameters if name not in ("self", "kwargs")]
