"""Groups of tensors that are measured together."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks.statistics.groups import (
    GroupStatistics,
    Review,
    group_norms,
    groups_of,
    joined,
)
from gradkeeper.callbacks.statistics.reductions import LARGE


def tensors_of(*shapes):
    random = np.random.default_rng(0)
    return [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]


def test_small_tensors_of_one_shape_are_rows_of_a_matrix():
    tensors = tensors_of((2,), (3, 4), (2,), (), (2,), (2,))
    (group,) = groups_of(tensors, tf.float32)
    assert group.wholes == 2
    assert group.columns == [1, 3, 0, 2, 4, 5]
    assert [each.shape.as_list() for each in group.tensors] == [[3, 4], [], [4, 2]]


def test_tensors_of_one_shape_and_two_dtypes_are_apart():
    half = [tf.cast(each, tf.float64) for each in tensors_of((2,), (2,))]
    (group,) = groups_of([*tensors_of((2,), (2,)), *half], tf.float64)
    assert group.wholes == 4


def test_large_tensors_are_split_into_groups_of_a_million_elements():
    tensors = tensors_of((5,), (700_000,), (3,), (600_000,), (LARGE + 1,))
    groups = groups_of(tensors, tf.float32)
    assert [sorted(group.columns) for group in groups] == [[0, 1, 2], [3, 4]]
    norms = joined(groups, [group_norms(group, tf.float32) for group in groups])
    np.testing.assert_allclose(norms, [np.linalg.norm(each) for each in tensors], rtol=1e-4)


def test_sums_that_are_known_are_not_computed_again():
    tensors = tensors_of((2,), (2,), (2,), (2,), (3, 4))
    sums = [tf.constant(float(number)) for number in range(5)]
    (group,) = groups_of(tensors, tf.float32, sums)
    assert group.columns == [4, 0, 1, 2, 3]
    assert group.sums.numpy().tolist() == [4, 0, 1, 2, 3]
    assert group.by_column(group.sums).numpy().tolist() == [0, 1, 2, 3, 4]


def statistics(values, *, largest_every=0, compares=False, now=False, number=0):
    """Return norms, largest magnitudes and non-finite counts of one vector, computed in a graph."""

    @tf.function
    def run(tensor, now, number):
        review = Review(now, number, largest_every, compares)
        (group,) = groups_of([tensor], tf.float32)
        return GroupStatistics(group, tf.float32, review).measured()

    measured = run(tf.constant(values), tf.constant(now), tf.constant(number, tf.int64))
    return [row[0] for row in measured.numpy().tolist()]


def test_largest_magnitudes_are_computed_if_they_are_due():
    values = [3.0, -4.0]
    norm, largest, bad = statistics(values, largest_every=8)
    assert (norm, bad) == (5, 0)
    assert np.isnan(largest)
    assert statistics(values, largest_every=8, now=True) == [5, 4, 0]
    assert statistics(values) == [5, 4, 0]


@pytest.mark.parametrize(("number", "is_known"), [(16, True), (17, False)])
def test_in_a_comparison_largest_magnitudes_are_due_in_one_step_of_eight(number, is_known):
    found = statistics([3.0, -4.0], largest_every=8, compares=True, now=True, number=number)
    assert found[0] == 5
    assert (found[1] == 4) == is_known


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], [0, 0, 0]),
        ([3e20, -4e20], [5e20, 4e20, 0]),
        ([3e-25, 4e-25], [5e-25, 4e-25, 0]),
        ([1.0, np.inf], [np.inf, np.inf, 1]),
        ([np.nan, np.inf], [np.nan, np.nan, 2]),
    ],
)
@pytest.mark.parametrize("now", [False, True])
def test_sums_that_may_be_inexact_are_computed_with_care(values, expected, now):
    found = statistics(values, largest_every=8, now=now)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
