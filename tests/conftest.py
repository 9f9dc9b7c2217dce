"""Shared ground of the tests: the import path, and replicas on logical CPU devices."""

import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the checkout on sys.path, where `zoo`, `callbacks` and `training`
# would be second copies of the installed packages.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

_REPLICAS = 4


def _split_the_cpu() -> None:
    """Before the first test: devices cannot be split once TensorFlow has used them."""
    import tensorflow as tf

    parts = [tf.config.LogicalDeviceConfiguration()] * _REPLICAS
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)


if importlib.util.find_spec("tensorflow") and (
    os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
):
    _split_the_cpu()


@pytest.fixture(scope="module", autouse=True)
def _models_are_freed() -> Iterator[None]:
    """Frees a module's models at its end, and has later collections pass over what stays.

    TensorFlow keeps a great many objects alive. Looked through again and again, they took a
    sixth of the tests' time, up to 40 s at once in the midst of some test.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_replicas() -> "tf.distribute.Strategy":
    """One for all tests: collective operations of a second one would meet those of the first."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def four_replicas() -> "tf.distribute.Strategy":
    """Reduces on one device, without collective operations."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(_REPLICAS)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
