"""Groups of gradients that are measured together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.reductions import LARGE, all_sums

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
        matrices = [_matrix([tensors[c] for c in rows]) for rows in alike]
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


def _matrix(alike: list[tf.Tensor]) -> tf.Tensor:
    return tf.reshape(tf.stack(alike), [len(alike), -1])


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
