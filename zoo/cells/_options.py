"""Options of a cell: the keyword-only arguments of its constructors, base classes first."""

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


def option_defaults(cell_class: type) -> dict[str, Any]:
    """Return a cell's options with defaults, without `units` and the arguments of any layer."""
    defaults: dict[str, Any] = {}
    for owner in reversed(cell_class.__mro__):
        if owner.__module__.startswith("keras.") or "__init__" not in vars(owner):
            continue
        for name, parameter in inspect.signature(vars(owner)["__init__"]).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and name not in LAYER_ARGUMENTS:
                defaults[name] = parameter.default
    return defaults


def resolve(option: str, value: Any) -> Any:
    """Convert a name or a config to a Keras object of the kind that the option's last word names.

    For example, "glorot_uniform" becomes an initializer if the option is `kernel_initializer`.
    """
    kind = _KINDS.get(option.rsplit("_", 1)[-1])
    return value if kind is None else kind.get(value)


def serialize(option: str, value: Any) -> Any:
    """Convert the value of an option to plain data, the inverse of `resolve`."""
    kind = _KINDS.get(option.rsplit("_", 1)[-1])
    return value if kind is None or value is None else kind.serialize(value)
