"""Fixtures of the zoo tests."""

import contextlib

import keras
import pytest
from keras.src.backend.common import dtypes  # its float64 rule has no public switch


@pytest.fixture(autouse=True)
def _repeatable():
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64(monkeypatch):
    """Enable float64 in all operations of every backend.

    JAX disables float64 by default. On all backends except TensorFlow,
    `keras.backend.result_type`, which many Keras operations use (`matmul` on torch, `tanh` on
    JAX), turns float64 into float32. The tests therefore verify the zoo's equations to more digits
    than those backends give a user.
    """
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    with _wide_jax() if keras.backend.backend() == "jax" else contextlib.nullcontext():
        yield


def _wide_jax():
    import jax

    return jax.enable_x64(True)
