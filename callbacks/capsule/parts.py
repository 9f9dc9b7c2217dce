"""Custom classes and functions of a model: their code is in neither Keras nor gradkeeper."""

from collections.abc import Iterator
from typing import Any

import keras

_KNOWN = ("keras", "gradkeeper")
# Keras searches these modules for a function that a configuration stores by name.
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")


def own_parts(config: Any) -> Iterator[tuple[str, str]]:
    """Yield the custom classes and functions, which a configuration stores only by name.

    Args:
        config: a configuration that `keras.saving.serialize_keras_object` returned.

    Yields:
        The name of each, and the name under which Keras registers it.
    """
    if isinstance(config, dict):
        name, registered = config.get("class_name"), config.get("registered_name") or ""
        is_object = isinstance(name, str) and "config" in config and not name.startswith("__")
        is_known = str(config.get("module")).split(".")[0] in _KNOWN
        if is_object and not is_known and not registered.startswith("gradkeeper>"):
            is_function = name == "function"
            own = str(config["config"] if is_function else name)
            if not (is_function and _is_of_keras(own)):
                yield own, own if registered in ("", "function") else registered
        for each in config.values():
            yield from own_parts(each)
    elif isinstance(config, list):
        for each in config:
            yield from own_parts(each)


def _is_of_keras(function: str) -> bool:
    return any(hasattr(getattr(keras, module), function) for module in _FUNCTIONS)


def own_parts_of(model: keras.Model) -> tuple[str, ...]:
    """Return the names of a model's custom parts, or its class name if it has no configuration."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception:  # noqa: BLE001 (a user's get_config may raise any exception)
        return (type(model).__name__,)
    return tuple(dict.fromkeys(name for name, _ in own_parts(config)))
