"""The options of a cell: the keyword-only arguments of its constructors, base class first."""

import inspect
from types import ModuleType
from typing import Any

import keras

LAYER_ARGUMENTS = frozenset({"name", "dtype", "trainable"})

_KINDS: dict[str, ModuleType] = {
    "activation": keras.activations,
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


def cell_options(cell_class: type) -> list[str]:
    """Names of the options that a cell has besides `units` and the arguments of any layer."""
    return list(option_defaults(cell_class))


def option_defaults(cell_class: type) -> dict[str, Any]:
    """The options of a cell besides `units` and the arguments of any layer, with their defaults."""
    defaults: dict[str, Any] = {}
    for owner in reversed(cell_class.__mro__):
        if owner.__module__.startswith("keras.") or "__init__" not in vars(owner):
            continue
        for name, parameter in inspect.signature(vars(owner)["__init__"]).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and name not in LAYER_ARGUMENTS:
                defaults[name] = parameter.default
    return defaults


def resolve(option: str, value: Any) -> Any:
    """Turns "glorot_uniform", a config or None into what the option's kind (its last word) is."""
    kind = _KINDS.get(option.rsplit("_", 1)[-1])
    return value if kind is None else kind.get(value)


def serialize(option: str, value: Any) -> Any:
    """The inverse of `resolve`, as plain data."""
    kind = _KINDS.get(option.rsplit("_", 1)[-1])
    return value if kind is None or value is None else kind.serialize(value)
