"""Norms where float32 squares over- or underflow, and of sparse gradients."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.tap.measure import l2_norms, statistics


def norm_of(gradient: tf.Tensor | tf.IndexedSlices, jit_compile: bool) -> float:
    run = tf.function(lambda: l2_norms([gradient], tf.float32), jit_compile=jit_compile)
    return float(run()[0])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("scale", [1e20, 1e-25, 1.0])
def test_no_overflow_and_no_underflow(scale, jit_compile):
    gradient = tf.constant([3.0, 4.0]) * scale
    assert norm_of(gradient, jit_compile) == pytest.approx(5 * scale, rel=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_zero_nan_and_inf(jit_compile):
    assert norm_of(tf.zeros([3]), jit_compile) == 0
    assert np.isnan(norm_of(tf.constant([1.0, np.nan, np.inf]), jit_compile))
    assert np.isinf(norm_of(tf.constant([1.0, -np.inf]), jit_compile))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size", [8, 9, 1_000_000, None])
@pytest.mark.parametrize("lookups", [4, None])
def test_duplicate_rows_are_summed(lookups, size, jit_compile):
    values, indices = tf.constant([[1.0, 2.0], [5.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), [7, 1, 7, 0]
    specs = [tf.TensorSpec([lookups, 2]), tf.TensorSpec([lookups], tf.int32)]

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def norm(values, indices):
        shape = None if size is None else tf.constant([size, 2])
        return l2_norms([tf.IndexedSlices(values, indices, shape)], tf.float32)

    expected = np.linalg.norm([[4, 6], [5, 0], [0, 1]])
    assert float(norm(values, tf.constant(indices))[0]) == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_measured_in_float32():
    gradient = tf.fill([1000], tf.constant(60.0, tf.float16))
    assert norm_of(gradient, jit_compile=False) == pytest.approx(60 * 1000**0.5, rel=1e-6)


def test_float64_keeps_its_precision():
    gradient = tf.constant([3e-200, 4e-200], tf.float64)
    assert float(l2_norms([gradient], tf.float64)[0]) == pytest.approx(5e-200, rel=1e-14)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_and_small_gradients_keep_their_order(jit_compile):
    sizes = [5, 20_000, 1_200_000, 3, 30_000]
    gradients = [
        tf.constant(np.random.default_rng(size).normal(size=size), tf.float32) for size in sizes
    ]
    gradients[4] *= 1e-25
    run = tf.function(lambda: statistics(gradients, tf.float32), jit_compile=jit_compile)
    norms, largest, bad = run().numpy()
    np.testing.assert_allclose(norms[:4], [np.linalg.norm(g) for g in gradients[:4]], rtol=1e-4)
    np.testing.assert_allclose(norms[4], 1e-25 * np.linalg.norm(gradients[4] * 1e25), rtol=1e-4)
    np.testing.assert_allclose(largest, [np.abs(g).max() for g in gradients], rtol=1e-6)
    assert not bad.any()
    np.testing.assert_allclose(l2_norms(gradients, tf.float32), norms, rtol=1e-4)
