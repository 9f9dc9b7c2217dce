"""Measurements of the optimizer state, of the update, and of the direction of the gradient."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradkeeper.callbacks._keras_private import Moments
from gradkeeper.callbacks.instrument.optimizers import moments_of
from gradkeeper.callbacks.measurements.registry import MeasurementContext, Pairs, measurement
from gradkeeper.callbacks.statistics.gradients import cosines, l2_norms, with_missing


@measurement("first_moment_rms", event="update")
def first_moment_rms(updates_and_vars: Pairs, context: MeasurementContext) -> tf.Tensor:
    """Return the RMS of the first moment (momentum) after the update, [variables].

    NaN if the optimizer has none for the variable. The momentum of `SGD` and `RMSprop` is that of
    the update: it contains the learning rate.
    """
    return _rms([each.first for each in _moments(updates_and_vars, context)], context.dtype)


@measurement("second_moment_rms", event="update")
def second_moment_rms(updates_and_vars: Pairs, context: MeasurementContext) -> tf.Tensor:
    """Return the RMS of the second moment after the update, [variables].

    The second moment is the moving average of squared gradients, without bias correction. NaN if
    the optimizer has none for the variable.
    """
    return _rms([each.second for each in _moments(updates_and_vars, context)], context.dtype)


@measurement("update_rms", event="update")
def update_rms(updates_and_vars: Pairs, context: MeasurementContext) -> tf.Tensor:
    """Return the RMS of the change of each variable: the effective step, [variables]."""
    return _rms([update for update, _ in updates_and_vars], context.dtype)


@measurement("gradient_cosine", reads=("previous_gradients",))
def gradient_cosine(grads_and_vars: Pairs, context: MeasurementContext) -> tf.Tensor:
    """Return the cosine between the gradient and that of the previous train step, [variables]."""
    gradients = [gradient for gradient, _ in grads_and_vars]
    return cosines(gradients, context.previous_gradients, context.norms, context.dtype)


@measurement("momentum_cosine", reads=("momenta",))
def momentum_cosine(grads_and_vars: Pairs, context: MeasurementContext) -> tf.Tensor:
    """Return the cosine between the gradient and the first moment before the update, [variables].

    1 if the gradient has the direction of the earlier gradients. NaN in the first step, and where
    `first_moment_rms` is NaN.
    """
    gradients = [gradient for gradient, _ in grads_and_vars]
    signs = [each.sign for each in _moments(grads_and_vars, context)]
    found = cosines(gradients, context.momenta, context.norms, context.dtype)
    return tf.constant(signs, context.dtype) * found


def _moments(pairs: Pairs, context: MeasurementContext) -> list[Moments]:
    return moments_of(context.call.optimizer, [variable for _, variable in pairs])


def _rms(tensors: Sequence[Any], dtype: tf.DType) -> tf.Tensor:
    """Return the RMS of each tensor or variable, [tensors]; NaN for None."""
    known = [i for i, each in enumerate(tensors) if each is not None]
    values = [tf.convert_to_tensor(tensors[i]) for i in known]
    sizes = tf.constant([max(each.shape.num_elements(), 1) for each in values], dtype)
    return with_missing(l2_norms(values, dtype) / tf.sqrt(sizes), known, len(tensors))
