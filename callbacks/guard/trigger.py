"""Triggers that skip a step because of its gradient norm."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks.instrument.graph import make_variable


class TriggerState(Protocol):
    """State of a trigger on one replica, in the graph."""

    def refuses(self, norm: tf.Tensor) -> tf.Tensor:
        """Return True if a step with this global norm, a finite scalar, must be skipped."""

    def learn(self, norm: tf.Tensor) -> None:
        """Update the state with the norm of an applied step."""


@dataclass(frozen=True)
class NormAbove:
    """Trigger that skips a step whose global gradient norm is above a bound.

    Args:
        bound: the largest allowed norm, before the optimizer's own clipping.

    Raises:
        ValueError: if `bound` is not positive.
    """

    bound: float

    def __post_init__(self) -> None:
        number("bound", self.bound)

    def begin(self, device: str | None) -> TriggerState:
        """Return the state of the trigger for one replica."""
        return _Bound(self.bound)


@dataclass(frozen=True)
class NormZScore:
    """Trigger that skips a step whose global gradient norm is far above the previous norms.

    The z-score of the norm's logarithm is computed over the last applied steps. OLMo's skip-step
    optimizer compares norm and loss in this way. ZClip (Kumar et al. 2025, arXiv:2504.02507)
    clips gradients with a high z-score instead.

    Args:
        z: the largest allowed z-score, in standard deviations above the mean.
        window: number of applied steps over which mean and standard deviation are computed.
        after: number of applied steps before the first step can be skipped.

    Raises:
        ValueError: if `z` is not positive, or unless 2 <= `after` <= `window`.
    """

    z: float = 6.0
    window: int = 128
    after: int = 32

    def __post_init__(self) -> None:
        number("z", self.z)
        integer("after", self.after, minimum=2)
        integer("window", self.window, minimum=self.after)

    def begin(self, device: str | None) -> TriggerState:
        """Return the state of the trigger for one replica."""
        return _Scores(self, device)


Trigger = NormAbove | NormZScore


class _Bound:
    def __init__(self, bound: float) -> None:
        self._bound = bound

    def refuses(self, norm: tf.Tensor) -> tf.Tensor:
        return norm > self._bound

    def learn(self, norm: tf.Tensor) -> None:
        pass


class _Scores:
    # Equal norms have a deviation of 0. At the default z, this allows a norm 20 percent larger.
    _LEAST_DEVIATION = math.log(1.2) / 6

    def __init__(self, trigger: NormZScore, device: str | None) -> None:
        self._trigger = trigger
        self._logs = make_variable(np.zeros(trigger.window, np.float32), device)
        self._taken = make_variable(np.array(0), device)

    def refuses(self, norm: tf.Tensor) -> tf.Tensor:
        taken = self._taken.read_value()
        known = tf.range(self._trigger.window, dtype=taken.dtype) < taken
        count = tf.maximum(tf.reduce_sum(tf.cast(known, tf.float32)), 1.0)
        logs = tf.where(known, self._logs, 0.0)
        mean = tf.reduce_sum(logs) / count
        square = tf.where(known, tf.square(logs - mean), 0.0)
        deviation = tf.sqrt(tf.reduce_sum(square) / count)
        deviation = tf.maximum(deviation, self._LEAST_DEVIATION)
        score = (_log(norm) - mean) / deviation
        return (taken >= self._trigger.after) & (score > self._trigger.z)

    def learn(self, norm: tf.Tensor) -> None:
        slot = tf.reshape(self._taken % self._trigger.window, [1])
        self._logs.scatter_update(tf.IndexedSlices(tf.reshape(_log(norm), [1]), slot))
        self._taken.assign_add(1)


def _log(norm: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(tf.cast(norm, tf.float32), 1e-30))
