"""Saturation of activations, in terms of their outputs."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

# The share of the largest derivative up to which an activation counts as saturated.
_SHARE = 0.05

# Returns where outputs are saturated, given the outputs, [positions, units].
Saturation: TypeAlias = Callable[[tf.Tensor], tf.Tensor]


def saturation_of(layer: keras.layers.Layer) -> Saturation | None:
    """Return where the outputs of a layer are saturated; None if its activation never is.

    `Activations` has the definitions. The output of `LSTM` and `GRU` is compared with the bounds of
    their `activation`.
    """
    if isinstance(layer, keras.layers.ReLU):
        if layer.negative_slope or layer.threshold:
            return None
        return _relu(layer.max_value)
    if isinstance(layer, keras.layers.ELU):
        return _elu(layer.alpha)
    if isinstance(layer, keras.layers.Softmax):
        return _softmax if layer.axis == -1 else None
    is_bounded = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)
    if isinstance(layer, keras.layers.RNN) and not isinstance(layer, is_bounded):
        return None  # the state of a cell need not be the output of its activation
    activation: Any = getattr(layer, "activation", None)
    if isinstance(activation, keras.layers.Layer):
        return saturation_of(activation)
    return _BY_FUNCTION.get(activation) if callable(activation) else None


def _sigmoid(y: tf.Tensor) -> tf.Tensor:
    return y * (1 - y) <= _SHARE / 4


def _softmax(y: tf.Tensor) -> tf.Tensor:
    return _sigmoid(tf.reduce_max(y, axis=-1, keepdims=True)) & tf.ones_like(y, tf.bool)


def is_zero(y: tf.Tensor) -> tf.Tensor:
    """Return where outputs are zero: the saturation of ReLU."""
    return tf.equal(y, 0)


def _relu(largest: float | None = None) -> Saturation:
    return is_zero if largest is None else lambda y: tf.equal(y, 0) | tf.equal(y, largest)


def _elu(bound: float) -> Saturation:
    return lambda y: y + bound <= _SHARE * max(bound, 1.0)


def _outside(low: float, high: float) -> Saturation:
    return lambda y: (y <= low) | (y >= high)


_SELU_BOUND = 1.0507009873554805 * 1.6732632423543772

_BY_FUNCTION: dict[Any, Saturation] = {
    keras.activations.sigmoid: _sigmoid,
    keras.activations.tanh: lambda y: 1 - tf.square(y) <= _SHARE,
    keras.activations.hard_sigmoid: _outside(0, 1),
    keras.activations.hard_tanh: _outside(-1, 1),
    keras.activations.softmax: _softmax,
    keras.activations.relu: is_zero,
    keras.activations.relu6: _relu(6),
    keras.activations.elu: _elu(1),
    keras.activations.selu: _elu(_SELU_BOUND),
}
