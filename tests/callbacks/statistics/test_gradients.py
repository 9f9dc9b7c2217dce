"""Gradient statistics for values of every kind, compared with NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.statistics import gradients as measure
from gradkeeper.callbacks.statistics.finite import all_finite
from gradkeeper.callbacks.statistics.gradients import histograms, l2_norms, statistics
from gradkeeper.callbacks.statistics.groups import Review


def norm_of(gradient: tf.Tensor | tf.IndexedSlices, jit_compile: bool) -> float:
    run = tf.function(lambda: l2_norms([gradient], tf.float32), jit_compile=jit_compile)
    return float(run()[0])


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("lookups", "size", "jit_compile"),
    [
        (4, 8, True),
        (4, 9, False),
        (4, 1_000_000, True),
        (4, None, False),
        (None, 8, False),
        (None, 1_000_000, False),
        (None, None, True),
    ],
)
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


@pytest.mark.slow
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


# Shapes measured together: single shapes, groups of equal shapes, large shapes, all kinds.
SHAPES = {
    "scalar": [()],
    "one element": [(1,)],
    "vector": [(2,)],
    "matrix": [(3, 4)],
    "empty": [(0,), (0, 3)],
    "large": [(130, 130)],
    "alike": [(2,)] * 5,
    "alike scalars": [()] * 4,
    "mixed": [(), (0,), (6, 2), (2,), (130, 130), (2,), (2,), (1, 1, 1), (2,), (17_000,)],
}
FILLS = {
    "finite": lambda a: a,
    "zero": lambda a: 0 * a,
    "all NaN": lambda a: a + np.nan,
    "all Inf": lambda a: np.inf * np.ones_like(a),
    "all -Inf": lambda a: -np.inf * np.ones_like(a),
    "one NaN": lambda a: put(a, np.nan),
    "NaN among zeros": lambda a: put(0 * a, np.nan),
    "one Inf": lambda a: put(a, np.inf),
    "one -Inf": lambda a: put(a, -np.inf),
    "NaN and Inf": lambda a: np.where(np.arange(a.size).reshape(a.shape) % 2, np.inf, np.nan),
    "NaN and -Inf": lambda a: np.where(np.arange(a.size).reshape(a.shape) % 3, -np.inf, np.nan),
    "tiny": lambda a: 1e-30 * a,
}


def put(array: np.ndarray, value: float) -> np.ndarray:
    """Return the array with one element replaced."""
    array = array.copy()
    array.flat[array.size // 2 : array.size // 2 + 1] = value
    return array


def by_numpy(gradient: tf.Tensor) -> list[float]:
    """Return norm, largest magnitude and non-finite count, computed in float64."""
    array = tf.cast(gradient, tf.float64).numpy()
    with np.errstate(invalid="ignore"):
        return [
            np.sqrt(np.sum(array * array)),
            np.max(np.abs(array), initial=0),
            np.sum(~np.isfinite(array)),
        ]


def filled(shapes: list, dtype: str, fill: str, only: int | None = None) -> list[tf.Tensor]:
    """Return gradients of these shapes, all of one kind or one of them among finite gradients."""
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape) + 0.1 for shape in shapes]
    chosen = range(len(shapes)) if only is None else [only]
    arrays = [FILLS[fill](a) if i in chosen else a for i, a in enumerate(arrays)]
    return [tf.cast(tf.constant(a, tf.float64), dtype) for a in arrays]


def check(measured: tf.Tensor, gradients: list[tf.Tensor], message: str) -> None:
    expected = np.transpose([by_numpy(gradient) for gradient in gradients])
    np.testing.assert_allclose(measured.numpy(), expected, rtol=2e-6, err_msg=message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "dtype", "jit_compile"),
    [
        *[(shapes, "float32", False) for shapes in SHAPES],
        *itertools.product(["scalar", "alike"], ["float64", "float16", "bfloat16"], [False]),
        ("mixed", "float32", True),
        ("scalar", "float64", True),
        ("alike", "float16", True),
        ("alike", "bfloat16", True),
    ],
)
def test_statistics_of_values_that_are_not_finite(shapes, dtype, jit_compile):
    shapes = SHAPES[shapes]
    result = tf.float64 if dtype == "float64" else tf.float32

    @tf.function(jit_compile=jit_compile)
    def run(*gradients):
        return statistics(gradients, result), l2_norms(gradients, result), all_finite(gradients)

    for fill in FILLS:
        for only in dict.fromkeys([None, 0, len(shapes) - 1]):
            gradients = filled(shapes, dtype, fill, only)
            measured, norms, finite = run(*gradients)
            check(measured, gradients, f"{fill}, {only}")
            np.testing.assert_allclose(norms, measured[0], rtol=1e-6)
            assert bool(finite) == (not measured.numpy()[2].any()), fill


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
def test_statistics_without_branches(jit_compile, monkeypatch):
    monkeypatch.setattr(measure, "is_branchless", lambda: True)
    run = tf.function(lambda *g: statistics(g, tf.float32), jit_compile=jit_compile)
    for fill in FILLS:
        gradients = filled(SHAPES["mixed"], "float32", fill)
        check(run(*gradients), gradients, fill)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("largest_every", [0, 2])
def test_statistics_that_are_reviewed(largest_every, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(now, number, *gradients):
        review = Review(now, number, largest_every, compares=True)
        return statistics(gradients, tf.float32, review=review)

    for fill in [fill for fill in FILLS if "NaN" in fill or "Inf" in fill]:
        gradients = filled(SHAPES["alike"], "float32", fill)
        for now in (False, True):
            check(run(tf.constant(now), tf.constant(2), *gradients), gradients, fill)


@pytest.mark.parametrize(("rows", "jit_compile"), [(6, False), (1_000_000, True)])
def test_statistics_of_looked_up_rows(rows, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(values):
        return statistics([tf.IndexedSlices(values, [3, 1, 3], tf.constant([rows, 2]))], tf.float32)

    for fill in FILLS:
        (values,) = filled([(3, 2)], "float32", fill)
        with np.errstate(invalid="ignore"):
            summed = np.stack([values[1], values[0] + values[2]])
        check(run(values), [tf.constant(summed)], fill)


@pytest.mark.parametrize(("factor", "jit_compile"), [(2.0, True), (np.nan, False), (np.inf, True)])
def test_statistics_of_a_gradient_times_a_scalar(factor, jit_compile):
    run = tf.function(lambda g, f: statistics([g * f], tf.float32), jit_compile=jit_compile)
    for fill in ("finite", "all NaN", "one NaN", "one Inf", "NaN among zeros"):
        (gradient,) = filled([(3, 4)], "float32", fill)
        check(run(gradient, tf.constant(factor)), [gradient * factor], fill)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
def test_a_histogram_counts_finite_elements_alone(jit_compile):
    run = tf.function(lambda *g: histograms(g, tf.float32), jit_compile=jit_compile)
    for fill in FILLS:
        gradients = filled([(), (3, 4), (130, 130)], "float32", fill)
        counts = [np.isfinite(gradient.numpy()).sum() for gradient in gradients]
        np.testing.assert_array_equal(tf.reduce_sum(run(*gradients), axis=1), counts, fill)
