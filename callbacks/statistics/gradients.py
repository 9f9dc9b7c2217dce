"""Statistics of gradients, in the graph, exact even if float32 squares over- or underflow."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import unmerged, unscaled
from gradkeeper.callbacks.instrument.optimizers import Clipping
from gradkeeper.callbacks.statistics.groups import (
    GroupStatistics,
    Review,
    group_norms,
    groups_of,
    joined,
)
from gradkeeper.callbacks.statistics.reductions import (
    careful,
    marked,
    sum_by_columns,
    sum_of_squares,
    wide_sum,
)
from gradkeeper.callbacks.window import BINS, EDGES

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

# Number of elements up to which reading a whole embedding is fast, even with few look-ups.
_SMALL = 2**19


class Measurable(NamedTuple):
    """Real float32 or float64 tensor and scalar whose product has the values of a gradient.

    Attributes:
        tensor: the tensor to reduce.
        factor: the scalar; None for 1.
    """

    tensor: tf.Tensor
    factor: tf.Tensor | None


def measurable(gradient: Gradient) -> Measurable:
    """Return a form of the gradient whose measurement does not affect the graph optimizer.

    Rows of an `IndexedSlices` with the same index are summed.
    """
    if isinstance(gradient, tf.IndexedSlices):
        values, factor = unscaled(gradient.values)
        tensor = _summed(unmerged(values), gradient.indices, gradient.dense_shape)
    else:
        base, factor = unscaled(gradient)
        tensor = unmerged(base)
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    if tensor.shape.num_elements() == 0:
        tensor = tf.zeros([1], tensor.dtype)
    return Measurable(tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32), factor)


def statistics(
    gradients: Sequence[Gradient],
    dtype: tf.DType,
    *,
    sums: Sequence[tf.Tensor] | None = None,
    review: Review | None = None,
) -> tf.Tensor:
    """Return L2 norm, largest magnitude and number of non-finite elements of each gradient.

    On a CPU, plain sums of squares are used where they are exact, and the others are computed again
    with scaling. On an accelerator, a branch would make the host wait for the device. Sums are
    taken in float64 there, which holds the square of every float32.

    Args:
        gradients: dense or `IndexedSlices` gradients, of any shapes.
        dtype: dtype of the result.
        sums: the result of `sums_of_squares`, if already computed.
        review: schedule of additional measurements; None for none.

    Returns:
        The statistics, [3, gradients]. Norm and magnitude are NaN if an element is NaN, else Inf if
        an element is Inf. The magnitude is NaN with a finite norm if it was not computed.
    """
    if not gradients:
        return tf.zeros([3, 0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if is_branchless():
        measured = _branchless(tensors, dtype)
        if review is not None:
            once = measured
            measured = tf.cond(review.now, lambda: _branchless(tensors, dtype), lambda: once)
    else:
        groups = groups_of(tensors, dtype, sums)
        by_group = [GroupStatistics(group, dtype, review).measured() for group in groups]
        measured = joined(groups, by_group)
    return _scaled(measured, parts, dtype)


def careful_statistics(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """Return the same as `statistics`, computed without a branch: slower, with a smaller graph."""
    parts = [measurable(gradient) for gradient in gradients]
    return _scaled(careful([each.tensor for each in parts], dtype, len(parts)), parts, dtype)


def is_branchless() -> bool:
    """Return True if every step computes all statistics in one way, as on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def sums_of_squares(
    gradients: Sequence[Gradient], dtype: tf.DType, clipping: Clipping | None = None
) -> list[tf.Tensor]:
    """Return the plain sum of squares of each gradient's `measurable` tensor.

    Args:
        gradients: the gradients.
        dtype: dtype of the result.
        clipping: the optimizer's own clipping of these gradients, which computes such sums too.
            TensorFlow merges equal expressions. None for sums that XLA compiles.
    """
    tensors = [measurable(gradient).tensor for gradient in gradients]
    if clipping is None:
        return [sum_by_columns(tensor, dtype) for tensor in tensors]
    return [sum_of_squares(tensor, dtype, clipping) for tensor in tensors]


def l2_norms(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """Return the L2 norm of each gradient, [gradients]; see `statistics`."""
    if not gradients:
        return tf.zeros([0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if is_branchless():
        norms = tf.stack([tf.cast(tf.sqrt(wide_sum(tensor)), dtype) for tensor in tensors])
    else:
        groups = groups_of(tensors, dtype)
        norms = joined(groups, [group_norms(group, dtype) for group in groups])
    return norms * _factors(parts, dtype)


def cosines(
    gradients: Sequence[tf.Tensor], others: Sequence[Any], norms: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Return the cosine between each gradient and another tensor, [gradients].

    Args:
        gradients: dense, real gradients, of any shapes.
        others: a tensor or variable for each gradient. If it is None, complex, or has another shape
            than the gradient, the cosine is NaN.
        norms: L2 norms of the gradients, [gradients].
        dtype: dtype of the result.
    """
    known = [i for i, each in enumerate(others) if _is_alike(each, gradients[i])]
    tensors = [measurable(tf.convert_to_tensor(others[i])).tensor for i in known]
    scales = tf.unstack(norms)
    dots = []
    for i, tensor in zip(known, tensors, strict=True):
        # Of a unit gradient, because the products of two small gradients would underflow.
        unit = tf.cast(gradients[i], dtype) / scales[i]
        dots.append(tf.reduce_sum(unit * tf.cast(tensor, dtype)))
    found = tf.stack(dots) / l2_norms(tensors, dtype) if dots else tf.zeros([0], dtype)
    return with_missing(found, known, len(gradients))


def _is_alike(tensor: Any, gradient: tf.Tensor) -> bool:
    if tensor is None or tf.as_dtype(tensor.dtype).is_complex:
        return False
    return tuple(tensor.shape) == tuple(gradient.shape)


def with_missing(values: tf.Tensor, columns: Sequence[int], width: int) -> tf.Tensor:
    """Move the values to positions `columns` of `width`, and fill the others with NaN, [width]."""
    if len(columns) == width:
        return values
    places = {column: place for place, column in enumerate(columns)}
    sources = [places.get(column, len(columns)) for column in range(width)]
    unknown = tf.constant([float("nan")], values.dtype)
    return tf.gather(tf.concat([values, unknown], axis=0), sources)


def _branchless(tensors: list[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    rows = []
    for tensor in tensors:
        bad = tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), dtype))
        largest = marked(tf.maximum(tf.reduce_max(tf.abs(tensor)), 0.0), tensor)
        rows.append([tf.cast(tf.sqrt(wide_sum(tensor)), dtype), tf.cast(largest, dtype), bad])
    return tf.stack([tf.stack(row) for row in rows], axis=1)


def _scaled(measured: tf.Tensor, parts: list[Measurable], dtype: tf.DType) -> tf.Tensor:
    """Convert the statistics of the tensors to those of the products with their factors."""
    if all(part.factor is None for part in parts):
        return measured
    factors = _factors(parts, dtype)
    sizes = tf.stack([tf.cast(tf.size(part.tensor), dtype) for part in parts])
    bad = tf.where(tf.math.is_finite(factors), measured[2], sizes)
    return tf.stack([measured[0] * factors, measured[1] * factors, bad])


def _factors(parts: list[Measurable], dtype: tf.DType) -> tf.Tensor:
    one = tf.ones([], dtype)
    factors = [part.factor for part in parts]
    return tf.stack([one if each is None else tf.abs(tf.cast(each, dtype)) for each in factors])


def _summed(values: tf.Tensor, indices: tf.Tensor, shape: tf.Tensor | None) -> tf.Tensor:
    """Sum the rows with the same index, and fill the remaining rows with zeros.

    An embedding's gradient has one row per look-up. Rows with the same index sum to one row of the
    true gradient, and the norm of the separate rows would differ from the true norm. For a small
    embedding, the result has the embedding's shape. Otherwise, the result has one row per look-up,
    and the look-ups are sorted. All shapes stay static, as XLA requires.

    Args:
        values: one row per look-up.
        indices: the index of each row in the embedding.
        shape: the shape of the embedding; None if unknown.
    """
    known = None if shape is None else tf.get_static_value(shape)
    if known is not None and _is_small(known, values.shape[0]):
        return tf.math.unsorted_segment_sum(values, indices, known[0])
    order = tf.argsort(indices)
    indices = tf.gather(indices, order)
    starts = tf.cast(indices[1:] != indices[:-1], tf.int32)
    segments = tf.concat([tf.zeros_like(indices[:1], tf.int32), tf.cumsum(starts)], axis=0)
    rows = tf.gather(values, order)
    return tf.math.unsorted_segment_sum(rows, segments, tf.size(indices))


def _is_small(shape: np.ndarray, lookups: int | None) -> bool:
    """Return True if reading an embedding of this shape is faster than sorting its look-ups."""
    return bool(np.prod(shape) <= _SMALL if lookups is None else shape[0] <= 2 * lookups)


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
