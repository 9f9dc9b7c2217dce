"""Shared ground of the zoo's tests."""

import contextlib

import keras
import pytest
from keras.src.backend.common import dtypes  # whose rule for float64 has no public switch


@pytest.fixture(autouse=True)
def _repeatable():
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64(monkeypatch):
    """Float64 throughout on every backend.

    JAX has none unless told to, and on all backends but TensorFlow Keras makes float64 float32 in
    `keras.backend.result_type`, which many of its operations ask (`matmul` on torch, `tanh` on
    JAX). So the zoo's equations are proven to more digits than those backends give a user.
    """
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    with _wide_jax() if keras.backend.backend() == "jax" else contextlib.nullcontext():
        yield


def _wide_jax():
    import jax

    return jax.enable_x64(True)
