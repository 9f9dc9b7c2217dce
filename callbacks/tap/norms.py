"""L2 norms of gradients, in the graph, right where float32 squares over- or underflow."""

from collections.abc import Sequence

import tensorflow as tf

Gradient = tf.Tensor | tf.IndexedSlices

# Below this sum of squares, elements that matter may have been lost to underflow (float32
# squares vanish under 1e-38; 1e-30 leaves eight decimal digits).
_TRUSTED_SUM = 1e-30


def dense(gradient: Gradient) -> tf.Tensor:
    """The gradient's values with duplicate rows summed, cast so that squares keep precision.

    An embedding's gradient comes as `IndexedSlices` with one row per look-up. Rows of the
    same index add up to one row of the true gradient; the norm of the unsummed rows would
    be another number. Sorting keeps every shape static, which XLA needs.
    """
    if isinstance(gradient, tf.IndexedSlices):
        order = tf.argsort(gradient.indices)
        indices = tf.gather(gradient.indices, order)
        starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
        segments = tf.concat([tf.zeros_like(indices[:1], tf.int32), tf.cumsum(starts)], axis=0)
        gradient = tf.math.unsorted_segment_sum(
            tf.gather(gradient.values, order), segments, tf.size(indices)
        )
    if gradient.dtype.is_complex:
        gradient = tf.abs(gradient)
    return gradient if gradient.dtype == tf.float64 else tf.cast(gradient, tf.float32)


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
    tensors = [dense(gradient) for gradient in gradients]
    sums = tf.stack([tf.cast(tf.reduce_sum(tf.square(tensor)), dtype) for tensor in tensors])
    trusted = tf.reduce_all(tf.math.is_finite(sums) & (sums > _TRUSTED_SUM))
    return tf.cond(
        trusted,
        lambda: tf.sqrt(sums),
        lambda: tf.stack([tf.cast(_scaled_norm(tensor), dtype) for tensor in tensors]),
    )


def _scaled_norm(tensor: tf.Tensor) -> tf.Tensor:
    largest = tf.reduce_max(tf.abs(tensor))
    usable = tf.math.is_finite(largest) & (largest > 0)
    scale = tf.where(usable, largest, tf.ones_like(largest))
    return scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale)))
