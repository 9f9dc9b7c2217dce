"""Reductions in the graph: sums of squares, norms and largest magnitudes."""

from collections.abc import Sequence

import tensorflow as tf

from gradkeeper.callbacks.instrument.optimizers import Clipping

# Number of elements above which reading a tensor takes longer than starting an operation.
LARGE = 16_384


def sum_of_squares(
    tensor: tf.Tensor, dtype: tf.DType, clipping: Clipping | None = None
) -> tf.Tensor:
    """Return the sum of squares, computed by the same operations as the optimizer's clipping."""
    if clipping == "clipnorm":
        return tf.cast(tf.squeeze(tf.reduce_sum(tensor * tensor, keepdims=True)), dtype)
    if clipping == "global_clipnorm":
        return tf.cast(tf.reduce_sum(tf.square(tensor)), dtype)
    return tf.cast(2.0 * tf.nn.l2_loss(tensor), dtype)  # one pass, without an array of squares


def sum_by_columns(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return the sum of squares, computed from the norms of columns.

    On a CPU, XLA sums all elements of a tensor one after the other, but sums several columns at
    once. XLA would turn a sum of sums into a single sum, which the square root prevents.
    """
    if tensor.shape.rank and (tensor.shape.num_elements() or 0) > LARGE:
        tensor = tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=0))
    return sum_of_squares(tensor, dtype)


def careful(tensors: Sequence[tf.Tensor], dtype: tf.DType, wholes: int) -> tf.Tensor:
    """Return norms, largest magnitudes and non-finite counts for any values, [3, columns].

    Args:
        tensors: tensors that are reduced as a whole, followed by matrices that are reduced by row.
        dtype: dtype of the result.
        wholes: number of tensors that are reduced as a whole.
    """
    pairs = list(zip(tensors, axes(tensors, wholes), strict=True))
    bad = [tf.reduce_sum(tf.cast(~tf.math.is_finite(each), dtype), axis) for each, axis in pairs]
    magnitudes = [marked(tf.reduce_max(tf.abs(each), axis), each, axis) for each, axis in pairs]
    norms = [careful_norm(each, axis) for each, axis in pairs]
    return tf.stack([of_each(each, dtype) for each in (norms, magnitudes, bad)])


def careful_norm(tensor: tf.Tensor, axis: int | None) -> tf.Tensor:
    """Return the L2 norm, scaled by the largest magnitude so that no square over- or underflows."""
    largest = tf.maximum(tf.reduce_max(tf.abs(tensor), axis, keepdims=True), 0.0)
    usable = tf.math.is_finite(largest) & (largest > 0)
    scale = tf.where(usable, largest, tf.ones_like(largest))
    norm = scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale), axis, keepdims=True))
    return tf.squeeze(norm) if axis is None else tf.squeeze(norm, axis)


def wide_sum(tensor: tf.Tensor) -> tf.Tensor:
    """Return the sum of squares in float64, which holds the square of every float32."""
    return tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64)))


def marked(largest: tf.Tensor, tensor: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    """Return `largest`, or NaN if the tensor or row has a NaN, which a maximum may ignore."""
    any_nan = tf.reduce_any(tf.math.is_nan(tensor), axis)
    return tf.where(any_nan, tf.cast(float("nan"), largest.dtype), largest)


def axes(tensors: Sequence[tf.Tensor], wholes: int) -> list[int | None]:
    """Return the reduction axis of each tensor: None for the first `wholes`, 1 for the others."""
    return [None if place < wholes else 1 for place in range(len(tensors))]


def of_each(measured: Sequence[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    """Concatenate scalars, followed by vectors, to one vector."""
    measured = [tf.cast(each, dtype) for each in measured]
    scalars = [each for each in measured if each.shape.rank == 0]
    vectors = measured[len(scalars) :]
    parts = [tf.stack(scalars), *vectors] if scalars else vectors
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def all_sums(tensors: Sequence[tf.Tensor], dtype: tf.DType, wholes: int) -> tf.Tensor:
    """Return the sums of squares, [columns]; see `careful`."""
    halves = [tf.nn.l2_loss(tensor) for tensor in tensors[:wholes]]
    rows = [tf.reduce_sum(tf.square(tensor), 1) for tensor in tensors[wholes:]]
    parts = [2.0 * of_each(halves, dtype)] if halves else []
    return of_each([*parts, *rows], dtype)
