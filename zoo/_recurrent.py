"""One recurrent layer of a model, and the stack of them."""

import importlib
import inspect
import zlib
from collections.abc import Callable
from typing import Any

import keras

import gradkeeper.zoo.initializers  # noqa: F401 - entries name them as Keras configs
from gradkeeper.zoo import _checks
from gradkeeper.zoo._masked import passes_masks
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._own_layer import (
    CHOSEN_HERE,
    check_config,
    check_outputs,
    check_two_directions,
    known_to_keras,
    make_own_layer,
    own_arguments,
)
from gradkeeper.zoo.cells._options import option_defaults
from gradkeeper.zoo.layers.cell_layer import CellLayer


def layer_class(info: ModelInfo) -> type[keras.layers.Layer]:
    """The recurrent layer that an entry refers to."""
    module, name = info.layer.split(":")
    found: type[keras.layers.Layer] = getattr(importlib.import_module(module), name)
    return found


def layer_arguments(info: ModelInfo) -> dict[str, Any]:
    """The arguments of an entry's layers that `create_model` passes on, with their defaults."""
    layer = layer_class(info)
    if issubclass(layer, CellLayer):
        defaults = {**dict.fromkeys(layer.option_names()), **option_defaults(layer.cell_class)}
        defaults.update(_defaults(keras.layers.RNN), dtype=None, trainable=True)
        names = layer.option_names()
    else:
        defaults = _defaults(layer)
        names = list(defaults)
    return {name: defaults[name] for name in names if name not in CHOSEN_HERE}


def seeded(layer: keras.layers.Layer, seed: int | None) -> keras.layers.Layer:
    """The same unbuilt layer with seeds of its own wherever none is set.

    Each seed follows from `seed`, the layer's name and the option's name: no two weights start
    alike, and adding a layer leaves the others as they were.
    """
    if seed is None:
        return layer
    config = layer.get_config()
    _set_seeds(config, f"{seed}/{layer.name}")
    with known_to_keras(layer):
        return type(layer).from_config(config)


def _set_seeds(config: dict[str, Any], path: str) -> None:
    """Sets each seed of a config that is None, those of a cell in it as well."""
    for option, value in config.items():
        own = zlib.crc32(f"{path}/{option}".encode()) & 0x7FFFFFFF
        settings = value.get("config") if isinstance(value, dict) else None
        if option == "seed" and value is None:
            config[option] = own
        elif isinstance(settings, dict) and option.endswith("_initializer"):
            if settings.get("seed", own) is None:
                settings["seed"] = own
        elif isinstance(settings, dict):
            _set_seeds(settings, f"{path}/{option}")


def recurrent_layer(
    info: ModelInfo, options: ModelOptions, name: str, **loop: Any
) -> keras.layers.Layer:
    """One recurrent layer, in two directions if asked for; it passes its input's mask on.

    Args:
        loop: `return_sequences`, `return_state`.

    Raises:
        TypeError: `options.layer_options` that the layer does not take.
        ValueError: a user's layer that does not fit in two directions.
    """
    layer = _layer(info, options, name, loop)
    inner = [layer.forward_layer, layer.backward_layer] if options.bidirectional else []
    for each in (layer, *inner):
        if isinstance(each, (keras.layers.RNN, keras.layers.Bidirectional)):
            each.supports_masking = True  # False in Keras's own layers as of Keras 3.16
    return layer


def _layer(
    info: ModelInfo, options: ModelOptions, name: str, loop: dict[str, Any]
) -> keras.layers.Layer:
    arguments = _layer_arguments(info, options)
    make: Callable[..., Any] = options.layer or layer_class(info)
    both: Callable[..., Any] = keras.layers.Bidirectional
    if options.mask_zero or options.mask_value is not None:
        make, both = passes_masks(make), passes_masks(both)
    forward = make_own_layer(make, {"name": name, **arguments, **loop})
    if options.layer is not None and (options.bidirectional or options.seed is not None):
        check_config(make, forward, arguments)
    if not options.bidirectional:
        return seeded(forward, options.seed)
    check_two_directions(forward)
    backward = make_own_layer(
        make, {"name": f"backward_{name}", "go_backwards": True, **arguments, **loop}
    )
    with known_to_keras(forward):
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
        every_step = return_sequences or index < options.num_layers
        layer = recurrent_layer(
            info, options, f"{info.layer_name}_{index}", return_sequences=every_step
        )
        y = layer(x)
        check_outputs(y, options, return_sequences=every_step)
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
    if options.layer is not None:
        return {**own_arguments(options), **chosen, **options.layer_options}
    allowed = layer_arguments(info).keys()
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


def _defaults(layer: type[keras.layers.Layer]) -> dict[str, Any]:
    """The arguments of a Keras layer's constructor, with their defaults."""
    parameters = inspect.signature(layer).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
