"""Gradient transform that clips before the optimizer's own clipping."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.clipping.methods import AGC, Limit, Method
from gradkeeper.callbacks.instrument.losses import with_values
from gradkeeper.callbacks.instrument.observer import GradientTransform
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    Variables,
    sum_over_replicas,
)
from gradkeeper.callbacks.statistics.gradients import l2_norms


class ClipTransform(GradientTransform):
    """Gradient transform that clips by a limit computed from gradient norms.

    Under several replicas the norms are those of the summed gradients, so N replicas clip like
    one device with the global batch.

    Args:
        method: the method that computes the limit.
        model: the model.
        optimizers: the optimizers whose gradients are clipped; None for all.
        compiled: whether XLA compiles the whole train step.
    """

    clips = True

    def __init__(
        self,
        method: Method,
        model: keras.Model,
        *,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self._method = method
        self._compiled = compiled
        self._limits: dict[tuple[int, int, int], Limit] = {}
        self._awaited: dict[str, np.ndarray] = {}

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Return the state of all limits, which is the same on every replica."""
        first = [limit for key, limit in self._limits.items() if key[0] == 0]
        return {
            f"{number}/{name}": value
            for number, limit in enumerate(first)
            for name, value in limit.state.items()
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load the state. Limits that do not exist yet load it when the first step creates them.

        Raises:
            ValueError: if the state belongs to another method or other options.
        """
        self._awaited = dict(state)
        numbers: dict[int, int] = {}
        for (replica, *_), limit in self._limits.items():
            number = numbers[replica] = numbers.get(replica, -1) + 1
            limit.load(_part(state, number))

    def reset(self) -> None:
        """Reset the state of all limits."""
        self._awaited = {}
        for limit in self._limits.values():
            limit.reset()

    def transform_before_clip(
        self, call: OptimizerCall, gradients: Gradients, variables: Variables
    ) -> Gradients:
        self.has_seen_gradients = True
        replica = call.replica
        whole = gradients if replica.count == 1 else sum_over_replicas(gradients)
        if isinstance(self._method, AGC):
            return [
                _times(gradient, _unit_factor(self._method, total, variable))
                for gradient, total, variable in zip(gradients, whole, variables, strict=True)
            ]
        norm = tf.norm(l2_norms(whole, tf.float32))
        limit = self._limit(call)
        factor = _kept_in(limit, norm)
        return [_times(gradient, factor) for gradient in gradients]

    def _limit(self, call: OptimizerCall) -> Limit:
        """Return the limit of this replica and of this clipping call in the step."""
        replica = call.replica
        key = (replica.index, id(call.optimizer), call.clippings)
        if key not in self._limits:
            assert not isinstance(self._method, AGC)
            limit = self._method.begin(replica.home(compiled=self._compiled))
            number = sum(each[0] == replica.index for each in self._limits)
            if part := _part(self._awaited, number):
                with ThreadPoolExecutor(1) as thread:  # outside the graph that is being traced
                    thread.submit(limit.load, part).result()
            self._limits[key] = limit
        return self._limits[key]


def _part(state: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """Return the state of the limit with this index."""
    start = f"{number}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def _kept_in(limit: Limit, norm: tf.Tensor) -> tf.Tensor:
    """Return the clipping factor for this norm. A non-finite norm gives 1 and no state update."""

    def finite() -> tf.Tensor:
        highest = limit.next(norm)
        return tf.where(norm > highest, highest / norm, tf.ones_like(norm))

    return tf.cond(tf.math.is_finite(norm), finite, lambda: tf.ones_like(norm))


def _unit_factor(method: AGC, gradient: Any, variable: Any) -> tf.Tensor:
    """Return the factor of each unit, in a shape that broadcasts to the gradient."""
    gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
    weights = tf.cast(tf.convert_to_tensor(variable), tf.float32)
    most = method.clipping * tf.maximum(_unit_norms(weights), method.eps)
    norms = _unit_norms(gradient)
    return tf.where(norms > most, most / tf.maximum(norms, 1e-6), tf.ones_like(norms))


def _unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    """Return norms over all axes except the last (the units), or the norm of a vector."""
    axes = list(range(max(tensor.shape.rank - 1, 1))) if tensor.shape.rank else None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))


def _times(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices) and factor.shape.rank:
        factor = tf.squeeze(factor, 0)  # IndexedSlices hold only some of the rows
    return with_values(gradient, lambda values: values * tf.cast(factor, values.dtype))
