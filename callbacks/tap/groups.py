"""Gradients that are measured together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.reductions import LARGE, all_sums

# Elements of large tensors that are held together until their branch is known.
_HELD = 1_000_000

# From so many on, small tensors of one shape are read sooner as one matrix than one by one.
_ALIKE = 4


class Group(NamedTuple):
    """Tensors that are measured together, in one branch.

    A branch holds what it may need until its condition is known. Large tensors, which would
    fall out of the processor's cache meanwhile, are held a few at a time. Small ones of one
    shape, where there are some, are the rows of a matrix: an operation for each of them would
    take longer to begin than to run, and with a thousand of them much longer still.

    Attributes:
        tensors: those that are reduced as wholes, then matrices.
        wholes: how many are reduced as wholes: large ones, and small ones of a rare shape.
        sums: sums of squares of all of them, [columns].
        columns: their places among all tensors, or those of the rows.
    """

    tensors: list[tf.Tensor]
    wholes: int
    sums: tf.Tensor
    columns: list[int]

    def by_column(self, measured: tf.Tensor) -> tf.Tensor:
        """What was measured of the group, [..., columns], in the order of all tensors."""
        return _in_order(measured, self.columns)


def groups_of(
    tensors: list[tf.Tensor], dtype: tf.DType, sums: Sequence[tf.Tensor] | None = None
) -> list[Group]:
    """The groups in which tensors are measured.

    Args:
        tensors: as they are to be reduced.
        dtype: of the sums.
        sums: the sum of squares of each tensor, if it is there already.
    """
    sizes = [tensor.shape.num_elements() or _HELD for tensor in tensors]
    small = [column for column, size in enumerate(sizes) if size <= LARGE]
    # Small ones are held with the first large ones, whose gradients come last.
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
    """Those of the chosen tensors whose shape few others have; and the others, by shape."""
    shapes: dict[tuple[Any, ...], list[int]] = {}
    for column in chosen:
        shapes.setdefault((tensors[column].dtype, *tensors[column].shape), []).append(column)
    few = [column for columns in shapes.values() if len(columns) < _ALIKE for column in columns]
    return few, [columns for columns in shapes.values() if len(columns) >= _ALIKE]


def _matrix(alike: list[tf.Tensor]) -> tf.Tensor:
    return tf.reshape(tf.stack(alike), [len(alike), -1])


def joined(groups: list[Group], measured: list[tf.Tensor]) -> tf.Tensor:
    """What was measured of each group, [..., columns] by column, for all tensors in their order."""
    if len(groups) == 1:
        return measured[0]
    columns = [column for group in groups for column in sorted(group.columns)]
    return _in_order(tf.concat(measured, axis=-1), columns)


def _in_order(measured: tf.Tensor, columns: list[int]) -> tf.Tensor:
    """Sorted by column, without an operation where it is already."""
    order = np.argsort(columns)
    if np.array_equal(order, np.arange(len(order))):
        return measured
    return tf.gather(measured, order, axis=-1)
