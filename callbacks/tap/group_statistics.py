"""Statistics of groups of gradients, recomputed with scaling where float32 is inexact."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from gradkeeper.callbacks.tap.branch import branch
from gradkeeper.callbacks.tap.groups import Group
from gradkeeper.callbacks.tap.reductions import all_sums, axes, careful, of_each

# A smaller sum of squares may have lost significant elements to underflow: float32 squares below
# 1e-38 vanish. 1e-30 leaves eight decimal digits.
_TRUSTED_SUM = 1e-30


class Review(NamedTuple):
    """Schedule of additional measurements of the gradients.

    Attributes:
        now: whether this step has an additional measurement, a boolean scalar.
        number: the number of the step, a scalar.
        largest_every: the largest magnitudes, which take longer than the norms, are computed only
            in one of this many steps; 0 if they are computed in every step.
        compares: whether more steps are scheduled, in which all statistics are computed twice.
    """

    now: tf.Tensor
    number: tf.Tensor
    largest_every: int
    compares: bool


class GroupStatistics:
    """Norms, largest magnitudes and non-finite counts of a group, from plain sums of squares.

    As many operations as possible are inside a branch. An operation in the surrounding graph may
    have to wait for a thread, which takes longer than most operations of this class.

    Args:
        group: the tensors and their sums of squares.
        dtype: dtype of the result.
        review: schedule of additional measurements; None for none.
    """

    def __init__(self, group: Group, dtype: tf.DType, review: Review | None) -> None:
        self._group, self._dtype, self._review = group, dtype, review
        self._largest_every = 0 if review is None else review.largest_every
        self._compares = review is not None and review.compares

    def measured(self) -> tf.Tensor:
        """Return the statistics, [3, columns], in the order of the columns."""
        sums, highest = self._group.sums, None
        now, number = tf.constant(False), tf.zeros([], tf.int64)
        if self._review is not None:
            now, number = self._review.now, self._review.number
            # If `now` is true, no sum passes this limit, and the thorough branch runs. The limit
            # does not depend on the sums, so that no operation waits for it.
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
        if self._review is None:  # exact sums take the quick branch
            return self._doubted(sums, now, tensors)
        return tf.cond(
            _are_exact(sums),
            lambda: self._reviewed(sums, number, tensors),
            lambda: self._doubted(sums, now, tensors),
        )

    def _reviewed(
        self, sums: tf.Tensor, number: tf.Tensor, tensors: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Add the largest magnitudes to exact sums if these are due; else compute all again."""

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
        """Compute the statistics if a sum may be inexact.

        A sum of zero is exact if all elements are zero. On a CPU, XLA's maximum ignores NaN: the
        largest magnitude of NaN and zeros is 0, and only the sum is NaN.
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
        """Return the statistics that are computed in every step."""
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
        # Two reductions read less memory than one reduction of an array of magnitudes. The
        # reductions of an empty tensor are infinite, and the outer maximum replaces them with 0.
        # NaN is not reported: XLA's reductions ignore it on a CPU.
        pairs = list(zip(tensors, axes(tensors, self._group.wholes), strict=True))
        highest = of_each([tf.reduce_max(tensor, axis) for tensor, axis in pairs], self._dtype)
        lowest = of_each([tf.reduce_min(tensor, axis) for tensor, axis in pairs], self._dtype)
        return tf.maximum(tf.maximum(highest, -lowest), tf.zeros([], self._dtype))


def group_norms(group: Group, dtype: tf.DType) -> tf.Tensor:
    """Return the L2 norms of a group, [columns], in the order of the columns."""

    def quick(sums: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return group.by_column(tf.sqrt(sums))

    def with_care(_: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        return group.by_column(careful(tensors, dtype, group.wholes)[0])

    return branch(_are_exact(group.sums), quick, with_care, [group.sums, *group.tensors])


def _are_exact(sums: tf.Tensor, highest: tf.Tensor | None = None) -> tf.Tensor:
    """Return whether all sums of squares are exact; a sum of zero counts as inexact."""
    return tf.reduce_all(_is_exact(sums, highest))


def _is_exact(sums: tf.Tensor, highest: tf.Tensor | None = None) -> tf.Tensor:
    """Return, for each sum of squares, whether it is large enough and at most `highest`."""
    lowest = tf.cast(_TRUSTED_SUM, sums.dtype)
    highest = sums.dtype.max if highest is None else highest
    # One operation; `tf.clip_by_value` takes two.
    trusted = tf.raw_ops.ClipByValue(t=sums, clip_value_min=lowest, clip_value_max=highest)
    return tf.equal(sums, trusted)
