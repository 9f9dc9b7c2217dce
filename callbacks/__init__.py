"""Callbacks for `model.fit`, and the tools that read their records.

The public names are listed in `__init__.pyi`. Each is imported when it is first used.
"""

from typing import Any

import lazy_loader

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(
            f"{name} needs TensorFlow, which is not installed. docs/backends.md lists what works "
            f"on each backend of Keras. Received: gradkeeper.callbacks.{name}"
        ) from error
