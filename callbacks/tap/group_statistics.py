"""Statistics of gradients that are measured together: quick, and careful where they must be."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from gradkeeper.callbacks.tap.branch import branch
from gradkeeper.callbacks.tap.groups import Group
from gradkeeper.callbacks.tap.reductions import all_sums, axes, careful, of_each

# Below this sum of squares, elements that matter may have been lost to underflow (float32
# squares vanish under 1e-38; 1e-30 leaves eight decimal digits).
_TRUSTED_SUM = 1e-30


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


class GroupStatistics:
    """Norms, largest magnitudes and non-finite counts of a group, from plain sums of squares.

    What can be done within a branch is: an operation of the graph around it may have to wait
    for a thread, which takes longer than most that are here.

    Args:
        group: the tensors, with their sums.
        dtype: of the result.
        review: when they are looked at again; None for never.
    """

    def __init__(self, group: Group, dtype: tf.DType, review: Review | None) -> None:
        self._group, self._dtype, self._review = group, dtype, review
        self._largest_every = 0 if review is None else review.largest_every
        self._compares = review is not None and review.compares

    def measured(self) -> tf.Tensor:
        """The statistics, [3, columns], by column."""
        sums, highest = self._group.sums, None
        now, number = tf.constant(False), tf.zeros([], tf.int64)
        if self._review is not None:
            now, number = self._review.now, self._review.number
            # Then no sum is exact enough. Known before the sums are, which others wait for.
            highest = tf.where(now, tf.cast(_TRUSTED_SUM, sums.dtype), sums.dtype.max)
        inputs = [sums, now, number, *self._group.tensors]
        return branch(_are_exact(sums, highest), self._quick, self._thorough, inputs)

    def _quick(self, sums: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        return self._usual(sums, inputs[-len(self._group.tensors) :])

    def _thorough(
        self,
        sums: tf.Tensor,
        now: tf.Tensor,
        number: tf.Tensor,
        *tensors: tf.Tensor,
    ) -> tf.Tensor:
        if self._review is None:  # then exact sums have been enough
            return self._doubted(sums, now, tensors)
        return tf.cond(
            _are_exact(sums),
            lambda: self._reviewed(sums, number, tensors),
            lambda: self._doubted(sums, now, tensors),
        )

    def _reviewed(
        self, sums: tf.Tensor, number: tf.Tensor, tensors: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Sums that are exact: their largest magnitudes, if due, or all once more."""

        def completed() -> tf.Tensor:
            return self._in_rows(sums, self._largest(tensors))

        def once_more() -> tf.Tensor:
            return self._usual(self._sums(tensors), tensors)

        if not self._largest_every:
            return once_more()
        if not self._compares:
            return completed()
        return tf.cond(tf.equal(number % self._largest_every, 0), completed, once_more)

    def _doubted(self, sums: tf.Tensor, now: tf.Tensor, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Sums that may not be exact: they are if those of zero are sums of zeros alone.

        On a CPU, XLA's maximum ignores NaN: the largest magnitude of NaN and zeros is 0 there,
        and only the sum is NaN.
        """
        largest = self._largest(tensors)

        def exact() -> tf.Tensor:
            once = self._in_rows(sums, largest)
            if not self._compares:
                return once
            return tf.cond(now, once_more, lambda: once)

        def once_more() -> tf.Tensor:
            return self._in_rows(self._sums(tensors), self._largest(tensors))

        def with_care() -> tf.Tensor:
            return self._group.by_column(careful(tensors, self._dtype, self._group.wholes))

        is_zero = (sums == 0) & (largest == 0)
        return tf.cond(tf.reduce_all(_is_exact(sums) | is_zero), exact, with_care)

    def _usual(self, sums: tf.Tensor, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """What is found in every step."""
        if not self._largest_every:
            return self._in_rows(sums, self._largest(tensors))
        unknown = tf.cast(float("nan"), self._dtype)
        return self._in_rows(sums, tf.fill([len(self._group.columns)], unknown))

    def _in_rows(self, sums: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
        none_bad = tf.zeros([len(self._group.columns)], self._dtype)
        return self._group.by_column(tf.stack([tf.sqrt(sums), largest, none_bad]))

    def _sums(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        return all_sums(tensors, self._dtype, self._group.wholes)

    def _largest(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        # Two reductions read less memory than an array of magnitudes and one. Without rows the
        # reductions are infinite. NaN is not reported: XLA's reductions ignore it on a CPU.
        pairs = list(zip(tensors, axes(tensors, self._group.wholes), strict=True))
        highest = of_each([tf.reduce_max(tensor, axis) for tensor, axis in pairs], self._dtype)
        lowest = of_each([tf.reduce_min(tensor, axis) for tensor, axis in pairs], self._dtype)
        return tf.maximum(tf.maximum(highest, -lowest), tf.zeros([], self._dtype))


def group_norms(group: Group, dtype: tf.DType) -> tf.Tensor:
    """L2 norms of a group, [columns], by column."""

    def quick(sums: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return group.by_column(tf.sqrt(sums))

    def with_care(_: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        return group.by_column(careful(tensors, dtype, group.wholes)[0])

    return branch(_are_exact(group.sums), quick, with_care, [group.sums, *group.tensors])


def _are_exact(sums: tf.Tensor, highest: tf.Tensor | None = None) -> tf.Tensor:
    """Whether no sum of squares has over- or underflowed; of zero that is not known."""
    return tf.reduce_all(_is_exact(sums, highest))


def _is_exact(sums: tf.Tensor, highest: tf.Tensor | None = None) -> tf.Tensor:
    """Which sums of squares are neither too small to be trusted nor larger than the highest."""
    lowest = tf.cast(_TRUSTED_SUM, sums.dtype)
    highest = sums.dtype.max if highest is None else highest
    # As one operation; tf.clip_by_value takes two.
    trusted = tf.raw_ops.ClipByValue(t=sums, clip_value_min=lowest, clip_value_max=highest)
    return tf.equal(sums, trusted)
