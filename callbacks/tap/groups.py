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
        tensors: large tensors, then matrices.
        large: how many of them are large ones, which take the longer the larger they are.
        sums: sums of squares of all of them, [columns].
        columns: their places among all tensors, or those of the rows.
    """

    tensors: list[tf.Tensor]
    large: int
    sums: tf.Tensor
    columns: list[int]


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
        matrices, rows = _matrices(tensors, [] if groups else small)
        members, columns = [*(tensors[c] for c in large), *matrices], [*large, *rows]
        if not members:
            continue
        if sums is None:
            total = all_sums(members, dtype, len(large))
        else:
            total = tf.stack([sums[c] for c in columns])
        groups.append(Group(members, len(large), total, columns))
    return groups


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
