"""L2 norms of gradients, in the graph, right where float32 squares over- or underflow."""

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

from gradkeeper.callbacks.tap.shadow import shadow, unscaled

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

# Below this sum of squares, elements that matter may have been lost to underflow (float32
# squares vanish under 1e-38; 1e-30 leaves eight decimal digits).
_TRUSTED_SUM = 1e-30


def l2_norms(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """L2 norm of each gradient.

    The plain root of the sum of squares (the sum that Keras's own clipping computes, so that
    TensorFlow shares it); only where one of the sums is zero, tiny or not finite are all
    computed again, scaled by the largest magnitude.

    Args:
        gradients: dense or `IndexedSlices` gradients, of any shapes.
        dtype: dtype of the result.

    Returns:
        Norms, [len(gradients)]; NaN or Inf where the gradient holds NaN or Inf.
    """
    tensors, factors = zip(*map(_measurable, gradients), strict=True)
    sums = tf.stack([tf.cast(tf.reduce_sum(tf.square(tensor)), dtype) for tensor in tensors])
    trusted = tf.reduce_all(tf.math.is_finite(sums) & (sums > _TRUSTED_SUM))
    norms = tf.cond(
        trusted,
        lambda: tf.sqrt(sums),
        lambda: tf.stack([tf.cast(_scaled_norm(tensor), dtype) for tensor in tensors]),
    )
    if all(factor is None for factor in factors):
        return norms
    one = tf.ones([], dtype)
    scales = [one if factor is None else tf.abs(tf.cast(factor, dtype)) for factor in factors]
    return norms * tf.stack(scales)


def _measurable(gradient: Gradient) -> tuple[tf.Tensor, tf.Tensor | None]:
    """A tensor and a scalar whose product has the gradient's norm; the scalar None for 1."""
    if isinstance(gradient, tf.IndexedSlices):
        values, factor = unscaled(gradient.values)
        tensor = _summed(shadow(values), gradient.indices)
    else:
        base, factor = unscaled(gradient)
        tensor = shadow(base)
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    return (tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)), factor


def _summed(values: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """The rows with those of one index added up, then zeros; shape of `values`.

    An embedding's gradient has one row per look-up. Rows of the same index add up to one row
    of the true gradient; the norm of the rows as they come would be another number. Sorting
    keeps every shape static, which XLA needs.
    """
    order = tf.argsort(indices)
    indices = tf.gather(indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([tf.zeros_like(indices[:1], tf.int32), tf.cumsum(starts)], axis=0)
    rows = tf.gather(values, order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.size(indices))


def _scaled_norm(tensor: tf.Tensor) -> tf.Tensor:
    largest = tf.reduce_max(tf.abs(tensor))
    usable = tf.math.is_finite(largest) & (largest > 0)
    scale = tf.where(usable, largest, tf.ones_like(largest))
    return scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale)))
