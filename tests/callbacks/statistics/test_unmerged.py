"""Copies of products and sums, which leave TensorFlow's graph optimizer unaffected."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import unmerged, unmerged_output, unscaled
from gradkeeper.callbacks.statistics.gradients import l2_norms, measurable

RANDOM = np.random.default_rng(0)
GRADIENTS = RANDOM.normal(size=(200, 50)).astype("float32")
SCALE, RATE = np.float32(1 / 3), np.float32(0.1234567)


def update(x, scale, rate, measure):
    """Return an update that TensorFlow reorders, and a measurement of its scaled gradient."""
    gradient = x * scale
    measured = measure(gradient)
    return gradient * rate, measured


def run(measure):
    function = tf.function(lambda x, s, r: update(x, s, r, measure))
    return function(tf.constant(GRADIENTS), tf.constant(SCALE), tf.constant(RATE))


def test_a_measurement_of_the_copy_leaves_the_update_bit_identical():
    plain, _ = run(lambda gradient: tf.constant(0.0))
    copied, norm = run(lambda gradient: tf.norm(unmerged(gradient)))
    np.testing.assert_array_equal(plain, copied)
    assert float(norm) == pytest.approx(np.linalg.norm(GRADIENTS * SCALE), rel=1e-5)


@pytest.mark.slow
def test_the_norm_leaves_the_update_bit_identical():
    plain, _ = run(lambda gradient: tf.constant(0.0))
    measured, norm = run(lambda gradient: l2_norms([gradient], tf.float32)[0])
    np.testing.assert_array_equal(plain, measured)
    assert float(norm) == pytest.approx(np.linalg.norm(GRADIENTS * SCALE), rel=1e-5)


@pytest.mark.parametrize(
    "combine",
    [lambda a, b: a * b, lambda a, b: a + b, lambda a, b: tf.add_n([a, b, a])],
    ids=["product", "sum", "sum of three"],
)
def test_a_copy_is_another_operation_with_the_same_value(combine):
    @tf.function
    def both(a, b):
        result = combine(a, b)
        copy = unmerged(result)
        assert copy is not result
        assert copy.op.type == result.op.type
        return result, copy

    a, b = (tf.constant(RANDOM.normal(size=5), tf.float32) for _ in range(2))
    one, other = both(a, b)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("has_product", [False, True])
def test_an_output_that_a_matrix_product_reads_as_well_is_not_copied(has_product):
    @tf.function
    def both(a):
        output = a + 1.0
        total = output + a
        product = tf.matmul(tf.reshape(output, [1, -1]), tf.ones([5, 1]))
        assert (unmerged_output(output if has_product else total, {}) is output) == has_product
        return total * 2.0, product

    both(tf.constant(RANDOM.normal(size=5), tf.float32))


def test_results_of_other_operations_are_not_copied():
    @tf.function
    def check(x):
        result = tf.tanh(x)
        assert unmerged(result) is result
        return result

    check(tf.ones(3))
    eager = tf.ones(3) * 2.0
    assert unmerged(eager) is eager


@pytest.mark.parametrize(
    ("scaled", "factor"),
    [
        (lambda x: x * 4.0, 4),
        (lambda x: 4.0 * x, 4),
        (lambda x: x / 4.0, 0.25),
        (lambda x: 2.0 * (x / 4.0), 0.5),
        (lambda x: x, None),
    ],
)
def test_scalar_factors_are_split_off(scaled, factor):
    @tf.function
    def split(x):
        tensor, found = unscaled(scaled(x))
        assert tensor is x
        return tf.constant(-1.0) if found is None else found

    assert float(split(tf.ones([2, 3]))) == (-1 if factor is None else factor)


def test_a_product_of_tensors_is_not_split():
    @tf.function
    def split(x):
        product = x * (x + 1.0)
        assert unscaled(product) == (product, None)
        return product

    split(tf.ones([2, 3]))


def test_a_measurable_gradient_is_real_and_not_empty():
    tensor, _ = measurable(tf.constant([3 + 4j, 0j], tf.complex64))
    assert tensor.numpy().tolist() == [5, 0]
    assert measurable(tf.zeros([0, 3])).tensor.numpy().tolist() == [0]
    assert measurable(tf.zeros([2], tf.bfloat16)).tensor.dtype == tf.float32
    assert measurable(tf.zeros([2], tf.float64)).tensor.dtype == tf.float64
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), [1, 0, 1], tf.constant([3, 1]))
    assert measurable(rows).tensor.numpy().tolist() == [[2], [5], [0]]
