"""Histograms of gradient magnitudes, in the graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.statistics.gradients import Gradient, measurable

# DownsampledSteps of half a decade. The first bin includes zeros and all smaller magnitudes, the last bin all
# larger ones. NaN and Inf are not counted.
EDGES = np.arange(-12.0, 4.5, 0.5)
BINS = len(EDGES) - 1


def histograms(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """Return the number of elements by log10 of their magnitude, in the bins of `EDGES`.

    Args:
        gradients: dense or `IndexedSlices` gradients, of any shapes.
        dtype: dtype of the result.

    Returns:
        The counts, [gradients, BINS].
    """
    return tf.stack([_histogram(gradient, dtype) for gradient in gradients])


def _histogram(gradient: Gradient, dtype: tf.DType) -> tf.Tensor:
    tensor, factor = measurable(gradient)
    if factor is not None:
        tensor = tensor * tf.cast(factor, tensor.dtype)
    tensor = tf.reshape(tensor, [-1])
    finite = tf.math.is_finite(tensor)
    magnitude = tf.where(finite, tf.abs(tensor), tf.ones_like(tensor))
    least = tf.cast(10.0 ** EDGES[0], tensor.dtype)
    decades = tf.math.log(tf.maximum(magnitude, least)) / np.log(10.0)
    place = tf.cast(tf.floor((decades - EDGES[0]) / (EDGES[1] - EDGES[0])), tf.int32)
    place = tf.clip_by_value(place, 0, BINS - 1)
    return tf.math.unsorted_segment_sum(tf.cast(finite, dtype), place, BINS)
