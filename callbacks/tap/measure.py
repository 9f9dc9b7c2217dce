"""Statistics of gradients, in the graph, right where float32 squares over- or underflow."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from gradkeeper.callbacks.tap.optimizers import Clipping
from gradkeeper.callbacks.tap.shadow import shadow, unscaled

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

# Below this sum of squares, elements that matter may have been lost to underflow (float32
# squares vanish under 1e-38; 1e-30 leaves eight decimal digits).
_TRUSTED_SUM = 1e-30


class Measurable(NamedTuple):
    """A real tensor in float32 or float64 and a scalar whose product has a gradient's values.

    Attributes:
        tensor: what is reduced.
        factor: the scalar; None for 1.
    """

    tensor: tf.Tensor
    factor: tf.Tensor | None


def measurable(gradient: Gradient) -> Measurable:
    """The gradient as it can be measured without being seen by the graph optimizer.

    Rows of an `IndexedSlices` with the same index are added up.
    """
    if isinstance(gradient, tf.IndexedSlices):
        values, factor = unscaled(gradient.values)
        tensor = _summed(shadow(values), gradient.indices)
    else:
        base, factor = unscaled(gradient)
        tensor = shadow(base)
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    if tensor.shape.num_elements() == 0:
        tensor = tf.zeros([1], tensor.dtype)
    return Measurable(tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32), factor)


def statistics(
    gradients: Sequence[Gradient],
    dtype: tf.DType,
    *,
    sums: tf.Tensor | None = None,
    again: tf.Tensor | None = None,
) -> tf.Tensor:
    """L2 norm, largest magnitude and number of non-finite elements of each gradient.

    On a CPU the plain sums are used where they can be trusted, and computed again with
    care, all of them, where one cannot. On an accelerator, where a branch would make the host
    wait for the device, sums are taken in float64, which needs no care.

    Args:
        gradients: dense or `IndexedSlices` gradients, of any shapes.
        dtype: dtype of the result.
        sums: what `sums_of_squares` gives, if it is there already.
        again: whether all is to be computed twice, to learn what that costs; None for never.

    Returns:
        [3, gradients]. Norm and magnitude are NaN where an element is NaN, otherwise Inf where
        one is Inf.
    """
    if not gradients:
        return tf.zeros([3, 0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if tf.config.list_physical_devices("GPU"):
        measured = _branchless(tensors, dtype)
        if again is not None:
            once = measured
            measured = tf.cond(again, lambda: _branchless(tensors, dtype), lambda: once)
    else:
        measured = _branching(tensors, dtype, sums, again)
    return _scaled(measured, parts, dtype)


def sums_of_squares(
    gradients: Sequence[Gradient], dtype: tf.DType, clipping: Clipping | None = None
) -> tf.Tensor:
    """Plain sum of squares of each gradient's `measurable` tensor, [gradients].

    Args:
        gradients: the gradients.
        dtype: dtype of the result.
        clipping: the optimizer's own clipping of these gradients, which takes such sums too:
            TensorFlow merges what is written alike.
    """
    return _sums([measurable(gradient).tensor for gradient in gradients], dtype, clipping)


def l2_norms(gradients: Sequence[Gradient], dtype: tf.DType) -> tf.Tensor:
    """L2 norm of each gradient, [gradients]; see `statistics`."""
    if not gradients:
        return tf.zeros([0], dtype)
    parts = [measurable(gradient) for gradient in gradients]
    tensors = [part.tensor for part in parts]
    if tf.config.list_physical_devices("GPU"):
        norms = tf.stack([tf.cast(tf.sqrt(_wide_sum(tensor)), dtype) for tensor in tensors])
    else:
        sums = _sums(tensors, dtype, None)
        trusted = tf.reduce_all(tf.math.is_finite(sums) & (sums > _TRUSTED_SUM))
        norms = tf.cond(
            trusted,
            lambda: tf.sqrt(sums),
            lambda: tf.stack([tf.cast(_careful_norm(tensor), dtype) for tensor in tensors]),
        )
    return norms * _factors(parts, dtype)


def _branching(
    tensors: list[tf.Tensor], dtype: tf.DType, sums: tf.Tensor | None, again: tf.Tensor | None
) -> tf.Tensor:
    def plain(sums: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        if sums is None:
            sums = _sums(tensors, dtype, None)
        return sums, tf.stack([tf.cast(_largest(tensor), dtype) for tensor in tensors])

    def in_a_row(sums: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.sqrt(sums), largest, tf.zeros_like(sums)])

    def with_care() -> tf.Tensor:
        return tf.stack([_careful(tensor, dtype) for tensor in tensors], axis=1)

    squares, largest = plain(sums)
    exact = tf.math.is_finite(squares) & ((squares > _TRUSTED_SUM) | (largest == 0))
    exact = tf.reduce_all(exact)
    if again is None:
        return tf.cond(exact, lambda: in_a_row(squares, largest), with_care)
    # One branch for both: each costs a little of its own for every tensor that it may need.
    return tf.cond(
        exact & ~again,
        lambda: in_a_row(squares, largest),
        lambda: tf.cond(exact, lambda: in_a_row(*plain(sums)), with_care),
    )


def _sums(tensors: list[tf.Tensor], dtype: tf.DType, clipping: Clipping | None) -> tf.Tensor:
    """Sums of squares, written as the optimizer's clipping writes them."""

    def of(tensor: tf.Tensor) -> tf.Tensor:
        if clipping == "clipnorm":
            return tf.squeeze(tf.reduce_sum(tensor * tensor, keepdims=True))
        if clipping == "global_clipnorm":
            return tf.reduce_sum(tf.square(tensor))
        return 2.0 * tf.nn.l2_loss(tensor)  # one pass, without an array of squares

    if not tensors:
        return tf.zeros([0], dtype)
    return tf.stack([tf.cast(of(tensor), dtype) for tensor in tensors])


def _largest(tensor: tf.Tensor) -> tf.Tensor:
    # Two reductions read less memory than an array of magnitudes and one. Without rows the
    # reductions are infinite.
    return tf.maximum(tf.maximum(tf.reduce_max(tensor), -tf.reduce_min(tensor)), 0.0)


def _careful(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Norm, largest magnitude and non-finite count of a tensor with any values, [3]."""
    bad = tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), dtype))
    largest = _marked(tf.reduce_max(tf.abs(tensor)), tensor)
    return tf.stack([tf.cast(_careful_norm(tensor), dtype), tf.cast(largest, dtype), bad])


def _careful_norm(tensor: tf.Tensor) -> tf.Tensor:
    largest = tf.maximum(tf.reduce_max(tf.abs(tensor)), 0.0)
    usable = tf.math.is_finite(largest) & (largest > 0)
    scale = tf.where(usable, largest, tf.ones_like(largest))
    return scale * tf.sqrt(tf.reduce_sum(tf.square(tensor / scale)))


def _branchless(tensors: list[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    rows = []
    for tensor in tensors:
        bad = tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), dtype))
        largest = _marked(tf.maximum(tf.reduce_max(tf.abs(tensor)), 0.0), tensor)
        rows.append([tf.cast(tf.sqrt(_wide_sum(tensor)), dtype), tf.cast(largest, dtype), bad])
    return tf.stack([tf.stack(row) for row in rows], axis=1)


def _wide_sum(tensor: tf.Tensor) -> tf.Tensor:
    """Sum of squares in float64, which holds the square of every float32."""
    return tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64)))


def _marked(largest: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """NaN if the tensor holds one: a maximum need not tell."""
    any_nan = tf.reduce_any(tf.math.is_nan(tensor))
    return tf.where(any_nan, tf.cast(float("nan"), largest.dtype), largest)


def _scaled(measured: tf.Tensor, parts: list[Measurable], dtype: tf.DType) -> tf.Tensor:
    """The statistics of the products, from those of the tensors."""
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
