"""Statistics of gradients, in the graph, right where float32 squares over- or underflow."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.branch import branch
from gradkeeper.callbacks.tap.groups import Group, groups_of, joined
from gradkeeper.callbacks.tap.optimizers import Clipping
from gradkeeper.callbacks.tap.reductions import (
    all_sums,
    axes,
    careful,
    marked,
    of_each,
    sum_by_columns,
    sum_of_squares,
    wide_sum,
)
from gradkeeper.callbacks.tap.shadow import shadow, unscaled

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

# Below this sum of squares, elements that matter may have been lost to underflow (float32
# squares vanish under 1e-38; 1e-30 leaves eight decimal digits).
_TRUSTED_SUM = 1e-30

# Elements of an embedding that are read in little time, however few were looked up.
_SMALL = 2**19


class Review(NamedTuple):
    """When gradients are looked at a second time.

    Attributes:
        now: whether they are in this step, a boolean scalar.
        number: the step's, a scalar.
        largest_every: in one of how many steps the largest magnitudes are found, which takes
            longer than the norms, and in no other; 0 if they are found in every step.
        compares: whether they are looked at in further steps, where all is computed again.
    """

    now: tf.Tensor
    number: tf.Tensor
    largest_every: int
    compares: bool


class Measurable(NamedTuple):
    """A real tensor in float32 or float64 and a scalar whose product has a gradient's values.

    Attributes:
        tensor: what is reduced.
        factor: the scalar; None for 1.
    """

    tensor: tf.Tensor
    factor: tf.Tensor | None


def measurable(gradient: Gradient) -> Measurable:
    """The gradient as it can be measured without being seen by the graph optimizer.

    Rows of an `IndexedSlices` with the same index are added up.
    """
    if isinstance(gradient, tf.IndexedSlices):
        values, factor = unscaled(gradient.values)
        tensor = _summed(shadow(values), gradient.indices, gradient.dense_shape)
    else:
        base, factor = unscaled(gradient)
        tensor = shadow(base)
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    if tensor.shape.num_elements() == 0:
        tensor = tf.zeros([1], tensor.dtype)
    return Measurable(tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32), factor)


def statistics(
    gradients: Sequence[Gradient],
    dtype: tf.DType,
    *,
    sums: Sequence[tf.Tensor] | None = None,
    review: Review | None = None,
) -> tf.Tensor:
    """L2 norm, largest magnitude and number of non-finite elements of each gradient.

    On a CPU the plain sums are used where they can be trusted, and what cannot is computed
    again with care. On an accelerator, where a branch would make the host wait for the device,
    sums are taken in float64, which needs no care.

    Args:
        gradients: dense or `IndexedSlices` gradients, of any shapes.
        dtype: dtype of the result.
        sums: what `sums_of_squares` gives, if it is there already.
        review: when they are looked at again; None for never.

    Returns:
        [3, gradients]. Norm and magnitude are NaN where an element is NaN, otherwise Inf where
        one is Inf. The magnitude is NaN where it was not to be found and the norm was.
    """
    if not gradients:
        return tf.zeros([3, 0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if is_branchless():
        measured = _branchless(tensors, dtype)
        if review is not None:
            once = measured
            measured = tf.cond(review.now, lambda: _branchless(tensors, dtype), lambda: once)
    else:
        groups = groups_of(tensors, dtype, sums)
        measured = joined(groups, [_statistics(group, dtype, review) for group in groups])
    return _scaled(measured, parts, dtype)


def is_branchless() -> bool:
    """Whether all is measured in every step, in one way."""
    return bool(tf.config.list_physical_devices("GPU"))


def sums_of_squares(
    gradients: Sequence[Gradient],
    dtype: tf.DType,
    clipping: Clipping | None = None,
    *,
    compiled: bool = False,
) -> list[tf.Tensor]:
    """Plain sum of squares of each gradient's `measurable` tensor.

    Args:
        gradients: the gradients.
        dtype: dtype of the result.
        clipping: the optimizer's own clipping of these gradients, which takes such sums too:
            TensorFlow merges what is written alike.
        compiled: whether XLA compiles them.
    """
    tensors = [measurable(gradient).tensor for gradient in gradients]
    if compiled and clipping is None:
        return [sum_by_columns(tensor, dtype) for tensor in tensors]
    return [sum_of_squares(tensor, dtype, clipping) for tensor in tensors]


def l2_norms(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """L2 norm of each gradient, [gradients]; see `statistics`."""
    if not gradients:
        return tf.zeros([0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if is_branchless():
        norms = tf.stack([tf.cast(tf.sqrt(wide_sum(tensor)), dtype) for tensor in tensors])
    else:
        groups = groups_of(tensors, dtype)
        norms = joined(groups, [_norms(group, dtype) for group in groups])
    return norms * _factors(parts, dtype)


def _statistics(group: Group, dtype: tf.DType, review: Review | None) -> tf.Tensor:
    """`statistics` of a group, [3, columns], by column.

    What can be done within the branches is: an operation of the graph around them may have to
    wait for a thread, which takes longer than most that are here.
    """
    many = len(group.columns)
    defers = review is not None and review.largest_every > 0

    def in_rows(sums: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
        return group.by_column(tf.stack([tf.sqrt(sums), largest, tf.zeros([many], dtype)]))

    def largest_of(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        # Two reductions read less memory than an array of magnitudes and one. Without rows the
        # reductions are infinite.
        pairs = list(zip(tensors, axes(tensors, group.wholes), strict=True))
        highest = of_each([tf.reduce_max(tensor, axis) for tensor, axis in pairs], dtype)
        lowest = of_each([tf.reduce_min(tensor, axis) for tensor, axis in pairs], dtype)
        return tf.maximum(tf.maximum(highest, -lowest), tf.zeros([], dtype))

    def usual(sums: tf.Tensor, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        unknown = tf.fill([many], tf.cast(float("nan"), dtype))
        return in_rows(sums, unknown if defers else largest_of(tensors))

    def afresh(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        return all_sums(tensors, dtype, group.wholes)

    def quick(sums: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        return usual(sums, inputs[-len(group.tensors) :])

    def doubted(sums: tf.Tensor, now: tf.Tensor, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        largest = largest_of(tensors)

        def sure() -> tf.Tensor:
            if review is None or not review.compares:
                return in_rows(sums, largest)
            return tf.cond(
                now,
                lambda: in_rows(afresh(tensors), largest_of(tensors)),
                lambda: in_rows(sums, largest),
            )

        def unsure() -> tf.Tensor:
            return group.by_column(careful(tensors, dtype, group.wholes))

        return tf.cond(tf.reduce_all(_is_exact(sums) | (largest == 0)), sure, unsure)

    def reviewed(sums: tf.Tensor, number: tf.Tensor, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        def completed() -> tf.Tensor:
            return in_rows(sums, largest_of(tensors))

        def once_more() -> tf.Tensor:
            return usual(afresh(tensors), tensors)

        if review is None or not defers:
            return once_more()
        if not review.compares:
            return completed()
        return tf.cond(tf.equal(number % review.largest_every, 0), completed, once_more)

    def thorough(
        sums: tf.Tensor,
        are_exact: tf.Tensor,
        now: tf.Tensor,
        number: tf.Tensor,
        *tensors: tf.Tensor,
    ) -> tf.Tensor:
        return tf.cond(
            are_exact,
            lambda: reviewed(sums, number, tensors),
            lambda: doubted(sums, now, tensors),
        )

    is_enough = are_exact = tf.reduce_all(_is_exact(group.sums))
    now, number = tf.constant(False), tf.zeros([], tf.int64)
    if review is not None:
        now, number = review.now, review.number
        is_enough = are_exact & ~now
    inputs = [group.sums, are_exact, now, number, *group.tensors]
    return branch(is_enough, quick, thorough, inputs)


def _norms(group: Group, dtype: tf.DType) -> tf.Tensor:
    """`l2_norms` of a group, [columns], by column."""

    def with_care(_: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        return group.by_column(careful(tensors, dtype, group.wholes)[0])

    def quick(sums: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return group.by_column(tf.sqrt(sums))

    are_exact = tf.reduce_all(_is_exact(group.sums))
    return branch(are_exact, quick, with_care, [group.sums, *group.tensors])


def _is_exact(sums: tf.Tensor) -> tf.Tensor:
    """Which sums of squares have neither over- nor underflowed; of zero that is not known."""
    return tf.equal(sums, tf.clip_by_value(sums, _TRUSTED_SUM, sums.dtype.max))


def _branchless(tensors: list[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    rows = []
    for tensor in tensors:
        bad = tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), dtype))
        largest = marked(tf.maximum(tf.reduce_max(tf.abs(tensor)), 0.0), tensor)
        rows.append([tf.cast(tf.sqrt(wide_sum(tensor)), dtype), tf.cast(largest, dtype), bad])
    return tf.stack([tf.stack(row) for row in rows], axis=1)


def _scaled(measured: tf.Tensor, parts: list[Measurable], dtype: tf.DType) -> tf.Tensor:
    """The statistics of the products, from those of the tensors."""
    if all(part.factor is None for part in parts):
        return measured
    factors = _factors(parts, dtype)
    sizes = tf.stack([tf.cast(tf.size(part.tensor), dtype) for part in parts])
    bad = tf.where(tf.math.is_finite(factors), measured[2], sizes)
    return tf.stack([measured[0] * factors, measured[1] * factors, bad])


def _factors(parts: list[Measurable], dtype: tf.DType) -> tf.Tensor:
    one = tf.ones([], dtype)
    factors = [part.factor for part in parts]
    return tf.stack([one if each is None else tf.abs(tf.cast(each, dtype)) for each in factors])


def _summed(values: tf.Tensor, indices: tf.Tensor, shape: tf.Tensor | None) -> tf.Tensor:
    """The rows with those of one index added up, and rows of zeros.

    An embedding's gradient has one row per look-up. Rows of the same index add up to one row
    of the true gradient; the norm of the rows as they come would be another number. They are
    added up in an array of the embedding's own shape if that is small, and else in one of the
    look-ups, which takes sorting. Every shape stays static, which XLA needs.

    Args:
        values: a row per look-up.
        indices: whose rows they are.
        shape: the embedding's; None if that is not known.
    """
    known = None if shape is None else tf.get_static_value(shape)
    if known is not None and _is_small(known, values.shape[0]):
        return tf.math.unsorted_segment_sum(values, indices, known[0])
    order = tf.argsort(indices)
    indices = tf.gather(indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([tf.zeros_like(indices[:1], tf.int32), tf.cumsum(starts)], axis=0)
    rows = tf.gather(values, order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.size(indices))


def _is_small(shape: np.ndarray, lookups: int | None) -> bool:
    """Whether an embedding of this shape is read sooner than its look-ups are sorted."""
    return bool(np.prod(shape) <= _SMALL if lookups is None else shape[0] <= 2 * lookups)
