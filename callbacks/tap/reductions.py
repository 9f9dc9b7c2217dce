"""One number of each tensor, in the graph: sums of squares and their like."""

from collections.abc import Sequence

import tensorflow as tf

from gradkeeper.callbacks.tap.optimizers import Clipping

# Elements beyond which reading a tensor takes longer than an operation takes to begin.
LARGE = 16_384


def sum_of_squares(
    tensor: tf.Tensor, dtype: tf.DType, clipping: Clipping | None = None
) -> tf.Tensor:
    """The sum of squares, written as the optimizer's clipping writes it."""
    if clipping == "clipnorm":
        return tf.cast(tf.squeeze(tf.reduce_sum(tensor * tensor, keepdims=True)), dtype)
    if clipping == "global_clipnorm":
        return tf.cast(tf.reduce_sum(tf.square(tensor)), dtype)
    return tf.cast(2.0 * tf.nn.l2_loss(tensor), dtype)  # one pass, without an array of squares


def sum_by_columns(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The sum of squares, from the norms of columns.

    On a CPU, XLA adds up one element after the other where all are added up, and several at
    once where columns are. Sums of sums it would turn into one sum.
    """
    if tensor.shape.rank and (tensor.shape.num_elements() or 0) > LARGE:
        tensor = tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=0))
    return sum_of_squares(tensor, dtype)


def careful(tensors: Sequence[tf.Tensor], dtype: tf.DType, wholes: int) -> tf.Tensor:
    """Norms, largest magnitudes and non-finite counts with any values, [3, columns].

    Args:
        tensors: the first ones are reduced as a whole, of the others each row.
        dtype: of the result.
        wholes: how many are reduced as a whole.
    """
    pairs = list(zip(tensors, axes(tensors, wholes), strict=True))
    bad = [tf.reduce_sum(tf.cast(~tf.math.is_finite(each), dtype), axis) for each, axis in pairs]
    magnitudes = [marked(tf.reduce_max(tf.abs(each), axis), each, axis) for each, axis in pairs]
    norms = [careful_norm(each, axis) for each, axis in pairs]
    return tf.stack([of_each(each, dtype) for each in (norms, magnitudes, bad)])


def careful_norm(tensor: tf.Tensor, axis: int | None) -> tf.Tensor:
    """L2 norm, scaled by the largest magnitude so that no square over- or underflows."""
    largest = tf.maximum(tf.reduce_max(tf.abs(tensor), axis, keepdims=True), 0.0)
    usable = tf.math.is_finite(largest) & (largest > 0)
    scale = tf.where(usable, largest, tf.ones_like(largest))
    norm = scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale), axis, keepdims=True))
    return tf.squeeze(norm) if axis is None else tf.squeeze(norm, axis)


def wide_sum(tensor: tf.Tensor) -> tf.Tensor:
    """Sum of squares in float64, which holds the square of every float32."""
    return tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64)))


def marked(largest: tf.Tensor, tensor: tf.Tensor, axis: int | None = None) -> tf.Tensor:
    """NaN if the tensor holds one, or the row: a maximum need not tell."""
    any_nan = tf.reduce_any(tf.math.is_nan(tensor), axis)
    return tf.where(any_nan, tf.cast(float("nan"), largest.dtype), largest)


def axes(tensors: Sequence[tf.Tensor], wholes: int) -> list[int | None]:
    """What of each is reduced: the first ones as a whole, of the others each row."""
    return [None if place < wholes else 1 for place in range(len(tensors))]


def of_each(measured: Sequence[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    """Scalars, and after them vectors, as one vector."""
    measured = [tf.cast(each, dtype) for each in measured]
    scalars = [each for each in measured if each.shape.rank == 0]
    vectors = measured[len(scalars) :]
    parts = [tf.stack(scalars), *vectors] if scalars else vectors
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def all_sums(tensors: Sequence[tf.Tensor], dtype: tf.DType, wholes: int) -> tf.Tensor:
    """Sums of squares, [columns]; see `careful`."""
    halves = [tf.nn.l2_loss(tensor) for tensor in tensors[:wholes]]
    rows = [tf.reduce_sum(tf.square(tensor), 1) for tensor in tensors[wholes:]]
    parts = [2.0 * of_each(halves, dtype)] if halves else []
    return of_each([*parts, *rows], dtype)
