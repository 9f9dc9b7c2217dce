"""Setup of the tests that run on the JAX backend, with four virtual CPU devices."""

import os

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    jax.config.update("jax_num_cpu_devices", 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if keras.backend.backend() != "jax":
        skip = pytest.mark.skip(reason=f"KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')!r}")
        for item in items:
            if item.path.parent.name == "jax":
                item.add_marker(skip)
