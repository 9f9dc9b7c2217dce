"""Gradients that are measured together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.reductions import LARGE, all_sums

# Elements of large tensors that are held together until their branch is known.
_HELD = 1_000_000


class Group(NamedTuple):
    """Tensors that are measured together, in one branch.

    A branch holds what it may need until its condition is known. Large tensors, which would
    fall out of the processor's cache meanwhile, are held a few at a time. Small ones of the same
    shape are the rows of a matrix: an operation for each of them would take longer to begin
    than to run, and with a thousand of them much longer still.

    Attributes:
        tensors: large tensors, or matrices.
        sums: sums of squares of all of them, [columns].
        columns: their places among all tensors, or those of the rows.
        are_large: whether they take the longer the larger they are.
    """

    tensors: list[tf.Tensor]
    sums: tf.Tensor
    columns: list[int]
    are_large: bool

    @property
    def axis(self) -> int | None:
        """What is reduced: each tensor as a whole, or each row."""
        return None if self.are_large else 1


def groups_of(
    tensors: list[tf.Tensor], dtype: tf.DType, sums: Sequence[tf.Tensor] | None = None
) -> list[Group]:
    """The groups in which tensors are measured.

    Args:
        tensors: as they are to be reduced.
        dtype: of the sums.
        sums: the sum of squares of each tensor, if it is there already.
    """
    small: list[int] = []
    large: list[list[int]] = []
    held = 0
    for column, tensor in enumerate(tensors):
        size = tensor.shape.num_elements() or _HELD
        if size <= LARGE:
            small.append(column)
            continue
        if not large or held + size > _HELD:
            large.append([])
            held = 0
        large[-1].append(column)
        held += size
    groups = [([tensors[c] for c in columns], columns, True) for columns in large]
    if small:
        groups.append((*_matrices(tensors, small), False))
    return [
        Group(
            members,
            all_sums(members, dtype, None if are_large else 1)
            if sums is None
            else tf.stack([sums[c] for c in columns]),
            columns,
            are_large,
        )
        for members, columns, are_large in groups
    ]


def _matrices(tensors: list[tf.Tensor], chosen: list[int]) -> tuple[list[tf.Tensor], list[int]]:
    """The chosen tensors as rows of matrices, one for each shape, and what the rows are."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for column in chosen:
        alike.setdefault((tensors[column].dtype, *tensors[column].shape), []).append(column)
    matrices = []
    for columns in alike.values():
        together = tensors[columns[0]]
        if len(columns) > 1:
            together = tf.stack([tensors[column] for column in columns])
        matrices.append(tf.reshape(together, [len(columns), -1]))
    return matrices, [column for columns in alike.values() for column in columns]


def joined(groups: list[Group], measured: list[tf.Tensor]) -> tf.Tensor:
    """What was measured of each group, [..., tensors], for all tensors in their order."""
    columns = [column for group in groups for column in group.columns]
    return tf.gather(tf.concat(measured, axis=-1), np.argsort(columns), axis=-1)
