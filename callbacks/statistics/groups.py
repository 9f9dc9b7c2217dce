"""Groups of gradients that are measured together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import branch
from gradkeeper.callbacks.statistics.reductions import LARGE, all_sums, axes, careful, of_each

# Number of elements above which a group is split: it stays in memory until its branch is chosen.
_HELD = 1_000_000

# From this number on, small tensors of one shape are read faster as one matrix than one by one.
_ALIKE = 4


class Group(NamedTuple):
    """Tensors that are measured together, in one branch.

    A branch keeps its possible inputs in memory until its condition is known. Large tensors would
    leave the processor's cache in the meantime, so that a group has only a few of them. Small
    tensors of one shape are stacked as the rows of a matrix: an operation for each of them would
    take longer to start than to run, and much longer with a thousand of them.

    Attributes:
        tensors: tensors that are reduced as a whole, followed by matrices.
        wholes: number of tensors that are reduced as a whole: large ones, and small ones with a
            rare shape.
        sums: sums of squares of all tensors and rows, [columns].
        columns: positions of the whole tensors and of the rows among all tensors.
    """

    tensors: list[tf.Tensor]
    wholes: int
    sums: tf.Tensor
    columns: list[int]

    def by_column(self, measured: tf.Tensor) -> tf.Tensor:
        """Sort the group's statistics, [..., columns], into the order of all tensors."""
        return _in_order(measured, self.columns)


def groups_of(
    tensors: list[tf.Tensor], dtype: tf.DType, sums: Sequence[tf.Tensor] | None = None
) -> list[Group]:
    """Return the groups in which the tensors are measured.

    Args:
        tensors: the tensors to reduce.
        dtype: dtype of the sums.
        sums: the sum of squares of each tensor, if already computed.
    """
    sizes = [tensor.shape.num_elements() or _HELD for tensor in tensors]
    small = [column for column, size in enumerate(sizes) if size <= LARGE]
    # Small tensors join the group of the first large ones, whose gradients are computed last.
    held = sum(sizes[column] for column in small)
    parts: list[list[int]] = [[]]
    for column, size in enumerate(sizes):
        if size <= LARGE:
            continue
        if held + size > _HELD and held:
            parts.append([])
            held = 0
        parts[-1].append(column)
        held += size
    groups: list[Group] = []
    for large in parts:
        few, alike = _by_shape(tensors, [] if groups else small)
        wholes = sorted([*large, *few])
        matrices = [
            tf.reshape(tf.stack([tensors[c] for c in rows]), [len(rows), -1]) for rows in alike
        ]
        members = [*(tensors[c] for c in wholes), *matrices]
        columns = [*wholes, *(c for rows in alike for c in rows)]
        if not members:
            continue
        if sums is None:
            total = all_sums(members, dtype, len(wholes))
        else:
            total = tf.stack([sums[c] for c in columns])
        groups.append(Group(members, len(wholes), total, columns))
    return groups


def _by_shape(tensors: list[tf.Tensor], chosen: list[int]) -> tuple[list[int], list[list[int]]]:
    """Split the tensors into those with a rare shape, and batches of equal shape."""
    shapes: dict[tuple[Any, ...], list[int]] = {}
    for column in chosen:
        shapes.setdefault((tensors[column].dtype, *tensors[column].shape), []).append(column)
    few = [column for columns in shapes.values() if len(columns) < _ALIKE for column in columns]
    return few, [columns for columns in shapes.values() if len(columns) >= _ALIKE]


def joined(groups: list[Group], measured: list[tf.Tensor]) -> tf.Tensor:
    """Concatenate the statistics of the groups, [..., columns], in the order of all tensors."""
    if len(groups) == 1:
        return measured[0]
    columns = [column for group in groups for column in sorted(group.columns)]
    return _in_order(tf.concat(measured, axis=-1), columns)


def _in_order(measured: tf.Tensor, columns: list[int]) -> tf.Tensor:
    """Sort by column, without an operation if the columns are already sorted."""
    order = np.argsort(columns)
    if np.array_equal(order, np.arange(len(order))):
        return measured
    return tf.gather(measured, order, axis=-1)


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
        self, sums: tf.Tensor, now: tf.Tensor, number: tf.Tensor, *tensors: tf.Tensor
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
