"""load_model: saved models with the zoo's layers in them."""

import re
from os import PathLike
from typing import Any

import keras

import gradkeeper.zoo._masked  # noqa: F401 - registers what models with masks hold
from gradkeeper.zoo import cells, layers

# Earlier versions can be made to load files and run code in safe mode: CVE-2025-8747 and
# CVE-2025-9906 (until 3.11.0), CVE-2025-9905 (HDF5 files, until 3.11.3), CVE-2025-12058 (until
# 3.12.0), CVE-2026-1462 (until 3.13.2).
_SAFE_MODE_HOLDS_SINCE = (3, 13, 2)


def load_model(
    path: str | PathLike[str], *, trust_model: bool = False, **options: Any
) -> keras.Model:
    """`keras.saving.load_model` with all of the zoo's cells and layers registered.

    Keras finds a class by name only after its module was imported, and the zoo's modules are
    imported at first use.

    Args:
        path: a `.keras` file.
        trust_model: whether to load the file with Keras 3.13.1 or earlier. The file can then load
            other files and run code, in safe mode too: set it for files that you trust. Later
            versions do not need it.
        options: of `keras.saving.load_model`.

    Raises:
        ValueError: if this version of Keras may run code from the file and `trust_model` is False.
    """
    numbers = re.findall(r"\d+", keras.__version__)[:3]
    if not trust_model and tuple(map(int, numbers)) < _SAFE_MODE_HOLDS_SINCE:
        raise ValueError(
            "In this version of Keras, a model's file can load files and run code. Update Keras to "
            "3.13.2 or later, or allow it for a file that you trust: load_model(path, "
            f"trust_model=True). Received: {path} with keras {keras.__version__}"
        )
    register()
    return keras.saving.load_model(path, **options)


def register() -> None:
    """Imports every cell and layer, so that Keras can load models that contain them."""
    for room in (cells, layers):
        for name in room.__all__:
            getattr(room, name)
