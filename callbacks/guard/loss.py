"""The loss of a step on one replica, on its way from `compute_loss` to the optimizer."""

from typing import Protocol

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.ring import make_variable


class StepLoss(Protocol):
    """The loss of the step under way. Used while it is traced or run."""

    def begin_step(self) -> None:
        """A step begins; its loss is not known."""

    def hold(self, loss: tf.Tensor | None) -> None:
        """Called with the loss, a scalar; None if there is no mean of it."""

    @property
    def is_known(self) -> bool:
        """Whether `hold` was called with a loss in this trace of the step."""

    @property
    def value(self) -> tf.Tensor:
        """The loss, NaN where it is not known."""

    @property
    def is_sound(self) -> tf.Tensor:
        """Whether the loss is finite or not known."""


class PassedLoss:
    """Passed on as a tensor, where one graph holds the whole step."""

    def __init__(self) -> None:
        self._loss: tf.Tensor | None = None

    def begin_step(self) -> None:
        self._loss = None

    def hold(self, loss: tf.Tensor | None) -> None:
        self._loss = loss

    @property
    def is_known(self) -> bool:
        return self._loss is not None

    @property
    def value(self) -> tf.Tensor:
        return tf.constant(np.nan, tf.float64) if self._loss is None else self._loss

    @property
    def is_sound(self) -> tf.Tensor:
        return tf.constant(True) if self._loss is None else tf.math.is_finite(self._loss)


class HeldLoss:
    """Held in a variable, where the step may have functions of its own.

    Args:
        device: where the variable lies; None for TensorFlow's choice.
    """

    def __init__(self, device: str | None) -> None:
        # The loss, and 1 if it is known.
        self._loss = make_variable(_UNKNOWN, device)
        self._is_known = False

    def begin_step(self) -> None:
        self._loss.assign(_UNKNOWN)
        self._is_known = False

    def hold(self, loss: tf.Tensor | None) -> None:
        if loss is not None:
            self._loss.assign(tf.stack([tf.cast(loss, tf.float64), 1.0]))
            self._is_known = True

    @property
    def is_known(self) -> bool:
        return self._is_known

    @property
    def value(self) -> tf.Tensor:
        return self._loss[0]

    @property
    def is_sound(self) -> tf.Tensor:
        value, is_known = tf.unstack(self._loss.read_value())
        return tf.math.is_finite(value) | tf.equal(is_known, 0.0)


_UNKNOWN = np.array([np.nan, 0.0])
