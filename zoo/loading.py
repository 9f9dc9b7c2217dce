"""load_model: a model's file from someone else."""

import re
from os import PathLike
from typing import Any

import keras

# Earlier versions can be made to load files and run code in safe mode: CVE-2025-8747 and
# CVE-2025-9906 (until 3.11.0), CVE-2025-9905 (HDF5 files, until 3.11.3), CVE-2025-12058 (until
# 3.12.0), CVE-2026-1462 (until 3.13.2).
_SAFE_MODE_HOLDS_SINCE = (3, 13, 2)


def load_model(
    path: str | PathLike[str], *, trust_model: bool = False, **options: Any
) -> keras.Model:
    """Load a model's file that someone else wrote, unless it may run code.

    As of Keras 3.13.2, this is `keras.saving.load_model`. Earlier versions may run code from a
    file in safe mode too, and need consent.

    Args:
        path: a `.keras` file.
        trust_model: whether to load the file with Keras 3.13.1 or earlier.
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
    return keras.saving.load_model(path, **options)
