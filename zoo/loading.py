"""load_model: saved models with the zoo's layers in them."""

from os import PathLike
from typing import Any

import keras

import gradkeeper.zoo._masked  # noqa: F401 - registers what models with masks hold
from gradkeeper.zoo import cells, layers


def load_model(path: str | PathLike[str], **options: Any) -> keras.Model:
    """`keras.saving.load_model` with all of the zoo's cells and layers registered.

    Keras finds a class by name only after its module was imported, and the zoo's modules are
    imported at first use.

    Args:
        path: a `.keras` file.
        options: of `keras.saving.load_model`.
    """
    register()
    return keras.saving.load_model(path, **options)


def register() -> None:
    """Imports every cell and layer, so that Keras can load models that contain them."""
    for room in (cells, layers):
        for name in room.__all__:
            getattr(room, name)
