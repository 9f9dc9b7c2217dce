"""Safe loading of model files."""

import re
from os import PathLike
from typing import Any

import keras

# In earlier versions, a model file can load files and run code even in safe mode: CVE-2025-8747
# and CVE-2025-9906 (until 3.11.0), CVE-2025-9905 (HDF5 files, until 3.11.3), CVE-2025-12058
# (until 3.12.0), CVE-2026-1462 (until 3.13.2).
_SAFE_MODE_HOLDS_SINCE = (3, 13, 2)


def load_model(
    path: str | PathLike[str], *, trust_model: bool = False, **options: Any
) -> keras.Model:
    """Load a model file from an untrusted source, unless it may run code.

    With Keras 3.13.2 or later, this function calls `keras.saving.load_model`. Earlier versions may
    run code from a file even in safe mode, so that they require `trust_model=True`.

    Args:
        path: a `.keras` file.
        trust_model: whether to load the file even with Keras 3.13.1 or earlier.
        **options: arguments of `keras.saving.load_model`.

    Raises:
        ValueError: if this version of Keras may run code from the file and `trust_model` is False.
    """
    numbers = re.findall(r"\d+", keras.__version__)[:3]
    if not trust_model and tuple(map(int, numbers)) < _SAFE_MODE_HOLDS_SINCE:
        raise ValueError(
            "In this version of Keras, a model file can load files and run code. Update Keras to "
            "3.13.2 or later, or pass `trust_model=True` if you trust the file. "
            f"Received: {path} with keras {keras.__version__}"
        )
    return keras.saving.load_model(path, **options)
