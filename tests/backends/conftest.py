"""Setup of the tests on the backends other than TensorFlow. JAX has four virtual CPU devices.

A module may name the backends that it tests in `BACKENDS`.
"""

import keras
import pytest

BACKEND = keras.backend.backend()

if BACKEND == "jax":
    import jax

    jax.config.update("jax_num_cpu_devices", 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason=f"the backend of Keras is {BACKEND}")
    for item in items:
        tested = getattr(item.module, "BACKENDS", ("jax", "torch"))
        if item.path.parent.name == "backends" and BACKEND not in tested:
            item.add_marker(skip)


def pytest_ignore_collect() -> bool | None:
    """Do not import the modules on TensorFlow."""
    return True if BACKEND == "tensorflow" else None
