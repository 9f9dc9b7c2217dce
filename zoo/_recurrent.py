"""Recurrent layers of a model."""

import dataclasses
import importlib
import inspect
import zlib
from typing import Any

import keras

import gradkeeper.zoo.initializers  # noqa: F401 - entries name them as Keras configs
from gradkeeper._arguments import boolean, no_unknown
from gradkeeper.zoo._masked import passes_masks
from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._typing import Config, LayerFactory
from gradkeeper.zoo._user_layer import (
    SET_BY_CREATE_MODEL,
    check_config,
    check_two_directions,
    known_to_keras,
    make_user_layer,
    user_arguments,
)
from gradkeeper.zoo.cells.cell_layer import CellLayer


def layer_class(info: ModelInfo) -> type[keras.layers.Layer]:
    """Import the recurrent layer class of an entry."""
    module, name = info.layer.split(":")
    found: type[keras.layers.Layer] = getattr(importlib.import_module(module), name)
    return found


def layer_arguments(info: ModelInfo) -> dict[str, Any]:
    """Return the arguments that `create_model` passes to an entry's layers, with their defaults."""
    defaults = _defaults(layer_class(info))
    return {name: value for name, value in defaults.items() if name not in SET_BY_CREATE_MODEL}


def seeded(layer: keras.layers.Layer, seed: int | None) -> keras.layers.Layer:
    """Return a copy of an unbuilt layer in which each seed that was None is set.

    Each seed is derived from `seed`, the layer's name and the option's name. Initial weights
    therefore differ between weights, and adding a layer does not change those of other layers.
    """
    if seed is None:
        return layer
    config = layer.get_config()
    _set_seeds(config, f"{seed}/{layer.name}")
    with known_to_keras(layer):
        return type(layer).from_config(config)


def _set_seeds(config: Config, path: str) -> None:
    """Set each seed in a layer's config that is None, including those of nested objects."""
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
    info: ModelInfo, options: ModelOptions, prefix: str, index: int, **loop: Any
) -> keras.layers.Layer:
    """Create one recurrent layer, wrapped in `Bidirectional` if `options.bidirectional`.

    The layer passes the mask of its input on.

    Args:
        info: the entry.
        options: the options of the model.
        prefix: prefix of the layer's name, which ends with the index.
        index: number of the layer, from 1. It selects the values of per-layer options.
        **loop: `return_sequences`, `return_state`.

    Raises:
        TypeError: if the layer does not take one of `options.layer_options`.
        ValueError: if a per-layer option does not have `options.num_layers` values, or if
            `Bidirectional` cannot wrap a user's layer.
    """
    layer = _layer(info, options, f"{prefix}_{index}", _layer_arguments(info, options, index), loop)
    inner = [layer.forward_layer, layer.backward_layer] if options.bidirectional else []
    for each in (layer, *inner):
        if isinstance(each, (keras.layers.RNN, keras.layers.Bidirectional)):
            each.supports_masking = True  # False in Keras's own layers as of Keras 3.16
    return layer


def _layer(
    info: ModelInfo, options: ModelOptions, name: str, arguments: Config, loop: Config
) -> keras.layers.Layer:
    make: LayerFactory = options.layer or layer_class(info)
    both: LayerFactory = keras.layers.Bidirectional
    if options.mask_zero or options.mask_value is not None:
        make, both = passes_masks(make), passes_masks(both)
    forward = make_user_layer(make, {"name": name, **arguments, **loop})
    if options.layer is not None and (options.bidirectional or options.seed is not None):
        check_config(make, forward, arguments)
    if not options.bidirectional:
        return seeded(forward, options.seed)
    check_two_directions(forward)
    backward = make_user_layer(
        make, {"name": f"backward_{name}", "go_backwards": True, **arguments, **loop}
    )
    with known_to_keras(forward):
        return both(
            seeded(forward, options.seed), backward_layer=seeded(backward, options.seed), name=name
        )


def _layer_arguments(info: ModelInfo, options: ModelOptions, index: int) -> Config:
    """Return the arguments of layer `index`, except those of `recurrent_layer`."""
    named = {
        name: getattr(options, name)
        for name in ("activation", "recurrent_initializer", "kernel_initializer")
    }
    defaults = _defaults(options.layer or layer_class(info))
    chosen = {
        name: _value_of_layer(name, value, defaults.get(name), index, options.num_layers)
        for name, value in {**named, **options.layer_options}.items()
    }
    chosen = {name: each for name, each in chosen.items() if each is not None or name not in named}
    if options.layer is not None:
        return {**user_arguments(options), **chosen}
    allowed = layer_arguments(info).keys()
    unknown = set(options.layer_options) - allowed
    if unknown:
        every = {*allowed, *(each.name for each in dataclasses.fields(ModelOptions))}
        no_unknown(f"The model {info.name!r}", unknown, every - {"layer_options"})
    for name, value in chosen.items():
        if isinstance(defaults.get(name), bool):
            boolean(name, value)
    return {
        "units": options.units,
        "dropout": options.dropout,
        "recurrent_dropout": options.recurrent_dropout,
        "stateful": options.stateful,
        **chosen,
    }


def _value_of_layer(name: str, value: Any, default: Any, index: int, num_layers: int) -> Any:
    """Return the value of layer `index`: its element of a list, or `value` for all layers.

    If the default is a tuple or a list, a list of numbers is one value. JSON stores tuples as
    lists.
    """
    per_layer = isinstance(value, list)
    if isinstance(default, (tuple, list)):
        per_layer = per_layer and all(isinstance(each, (tuple, list)) for each in value)
    if not per_layer:
        return value
    if len(value) != num_layers:
        raise ValueError(
            f"A list for `{name}` must have one value per layer, num_layers={num_layers}. "
            f"Received: {name}={value!r}"
        )
    return value[index - 1]


def _defaults(make: LayerFactory) -> dict[str, Any]:
    """Return the arguments of a layer class or function, with their defaults."""
    if isinstance(make, type) and issubclass(make, CellLayer):
        return make.option_defaults()
    parameters = inspect.signature(make).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
