"""Loss of a train step, passed from `compute_loss` to the check before the update."""

from typing import Protocol

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.replica import make_variable


class StepLoss(Protocol):
    """Loss of the running step on one replica. Used while the step is traced or run."""

    def begin_step(self) -> None:
        """Mark the loss as unknown at the beginning of a step."""

    def hold(self, loss: tf.Tensor | None) -> None:
        """Store the loss, a scalar; None if the loss has no mean."""

    @property
    def is_known(self) -> bool:
        """Return True if `hold` was called with a loss in this trace of the step."""

    @property
    def value(self) -> tf.Tensor:
        """Return the loss; NaN if unknown."""

    @property
    def is_ok(self) -> tf.Tensor:
        """Return True if the loss is finite or unknown."""


class PassedLoss:
    """Loss held as a tensor, for a step that is a single graph."""

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
    def is_ok(self) -> tf.Tensor:
        return tf.constant(True) if self._loss is None else tf.math.is_finite(self._loss)


class HeldLoss:
    """Loss held in a variable, for a step that may call `tf.function`s.

    Args:
        device: device of the variable; None for TensorFlow's choice.
    """

    def __init__(self, device: str | None) -> None:
        # [loss, 1 if the loss is known].
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
    def is_ok(self) -> tf.Tensor:
        value, is_known = tf.unstack(self._loss.read_value())
        return tf.math.is_finite(value) | tf.equal(is_known, 0.0)


_UNKNOWN = np.array([np.nan, 0.0])
