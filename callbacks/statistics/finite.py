"""Checks whether gradients and variables are finite."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import branch, unmerged
from gradkeeper.callbacks.instrument.step_context import Gradients
from gradkeeper.callbacks.statistics.gradients import careful_statistics


def all_finite(gradients: Gradients, *, squares: bool = False) -> tf.Tensor:
    """Return whether every element is finite.

    The sum of squares of a gradient may overflow although every element is finite. If a sum is not
    finite, every element is checked.

    Args:
        gradients: dense or `IndexedSlices` gradients.
        squares: whether the square of every element must be finite as well.
    """

    def one_by_one(*tensors: tf.Tensor) -> tf.Tensor:
        values = [tf.square(each) if squares else each for each in tensors]
        return _all(tf.math.is_finite(each) for each in values)

    tensors = [_real_values(each) for each in gradients]
    return branch(_sums_are_finite(tensors), lambda *_: tf.constant(True), one_by_one, tensors)


def remain_finite(after: list[tf.Tensor], before: list[tf.Tensor]) -> tf.Tensor:
    """Return whether every element that was finite before is finite after.

    Some variables hold infinities on purpose, such as a mask or a running minimum.

    Args:
        after: the current values, floating-point or complex.
        before: the earlier values, in the same order.
    """

    def one_by_one(*tensors: tf.Tensor) -> tf.Tensor:
        pairs = zip(tensors[: len(after)], tensors[len(after) :], strict=True)
        return _all(tf.math.is_finite(a) | ~tf.math.is_finite(b) for a, b in pairs)

    tensors = [_real_values(each) for each in after]
    inputs = [*tensors, *(_real_values(each) for each in before)]
    return branch(_sums_are_finite(tensors), lambda *_: tf.constant(True), one_by_one, inputs)


def statistics_if(condition: tf.Tensor, gradients: Gradients, scale: Any) -> tf.Tensor:
    """Return the statistics of the unscaled gradients if the condition is true, [3, gradients].

    Args:
        condition: a boolean scalar; if it is false, all statistics are 0.
        gradients: the gradients.
        scale: the factor that the gradients were multiplied by; None for 1. Norms and largest
            magnitudes are divided by it.
    """
    one = tf.constant(1.0)
    divisor = one if scale is None else tf.cast(tf.convert_to_tensor(scale), tf.float32)

    def measured(divisor: tf.Tensor, *parts: tf.Tensor) -> tf.Tensor:
        whole = tf.nest.pack_sequence_as(gradients, list(parts), expand_composites=True)
        norms, largest, bad = tf.unstack(careful_statistics(whole, tf.float32))
        return tf.stack([norms / divisor, largest / divisor, bad])

    def nothing(*_: tf.Tensor) -> tf.Tensor:
        return tf.zeros([3, len(gradients)])

    parts = tf.nest.flatten(gradients, expand_composites=True)
    return branch(condition, measured, nothing, [divisor, *parts])


def _sums_are_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    sums = [tf.cast(tf.nn.l2_loss(each), tf.float32) for each in tensors]
    return tf.reduce_all(tf.math.is_finite(tf.stack(sums)))


def _all(flags: Iterable[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_all([tf.reduce_all(each) for each in flags])


def _real_values(gradient: Any) -> tf.Tensor:
    values = unmerged(gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient)
    return tf.abs(values) if values.dtype.is_complex else values
