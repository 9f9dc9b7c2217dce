"""Adaptive clipping in TensorFlow's train step."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.clipping.methods import (
    AGC,
    Arrays,
    LimitMethod,
    Method,
    factor_of,
    part_of,
    require_shapes,
)
from gradkeeper.callbacks.instrument.graph import make_variable
from gradkeeper.callbacks.instrument.losses import with_values
from gradkeeper.callbacks.instrument.observer import GradientTransform
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    Variables,
    sum_over_replicas,
)
from gradkeeper.callbacks.statistics.gradients import l2_norms


class Limit:
    """Limit of one replica. All replicas receive the same norms and compute the same limit.

    Args:
        method: the method that computes the limit.
        device: device of the `variables`, the state by name; None for TensorFlow's choice.
    """

    def __init__(self, method: LimitMethod, device: str | None) -> None:
        self._method = method
        first = method.first_values()
        self.variables = {name: make_variable(value, device) for name, value in first.items()}

    def load(self, state: Arrays) -> None:
        """Load the state. Call it outside of the graph.

        Raises:
            ValueError: if the shapes are those of another method or other options.
        """
        require_shapes(self.variables, state)
        for name, value in state.items():
            self.variables[name].assign(value)

    def reset(self) -> None:
        """Reset the variables to their initial values."""
        self.load(self._method.first_values())

    def factor(self, norm: tf.Tensor) -> tf.Tensor:
        """Return the clipping factor for this global norm, a float32 scalar, and update the state.

        A non-finite norm gives 1 and no update.
        """

        def finite() -> tf.Tensor:
            before = {name: each.read_value() for name, each in self.variables.items()}
            highest, after = self._method.limit(norm, before)
            for name, value in after.items():
                self.variables[name].assign(value)
            return factor_of(norm, highest)

        return tf.cond(tf.math.is_finite(norm), finite, lambda: tf.ones_like(norm))


class ClipTransform(GradientTransform):
    """Gradient transform that clips by a limit computed from gradient norms.

    Under several replicas the norms are those of the summed gradients, so N replicas clip like
    one device with the global batch. The arguments are those of `StepCallback`'s `make`.
    """

    clips = True

    def __init__(
        self, method: Method, model: keras.Model, *, optimizers: Any, compiled: bool
    ) -> None:
        super().__init__(optimizers)
        self._method, self._compiled = method, compiled
        # For each replica, the limits in the order of the clipping calls in a step.
        self._limits: dict[int, dict[tuple[int, int], Limit]] = defaultdict(dict)
        self._awaited: Arrays = {}

    @property
    def state(self) -> Arrays:
        """Return the state of all limits, which is the same on every replica."""
        return {
            f"{number}/{name}": variable.numpy()
            for number, limit in enumerate(self._limits[0].values())
            for name, variable in limit.variables.items()
        }

    def load(self, state: Arrays) -> None:
        """Load the state. Limits that do not exist yet load it when the first step creates them.

        Raises:
            ValueError: if the state belongs to another method or other options.
        """
        self._awaited = state
        for limits in self._limits.values():
            for number, limit in enumerate(limits.values()):
                limit.load(part_of(state, number))

    def reset(self) -> None:
        """Reset the state of all limits."""
        self._awaited = {}
        for limits in self._limits.values():
            for limit in limits.values():
                limit.reset()

    def transform_before_clip(
        self, call: OptimizerCall, gradients: Gradients, variables: Variables
    ) -> Gradients:
        self.has_seen_gradients = True
        whole = gradients if call.replica.count == 1 else sum_over_replicas(gradients)
        if isinstance(self._method, AGC):
            pairs = zip(whole, variables, strict=True)
            factors = [self._method.factor(*map(tf.convert_to_tensor, pair)) for pair in pairs]
        else:
            norm = tf.norm(l2_norms(whole, tf.float32))
            factors = [self._limit(self._method, call).factor(norm)] * len(gradients)
        return [
            _times(gradient, factor) for gradient, factor in zip(gradients, factors, strict=True)
        ]

    def _limit(self, method: LimitMethod, call: OptimizerCall) -> Limit:
        """Return the limit of this replica and of this clipping call in the step."""
        limits = self._limits[call.replica.index]
        key = id(call.optimizer), call.clippings
        if key not in limits:
            limit = Limit(method, call.replica.home(compiled=self._compiled))
            if part := part_of(self._awaited, len(limits)):
                with ThreadPoolExecutor(1) as thread:  # outside the graph that is being traced
                    thread.submit(limit.load, part).result()
            limits[key] = limit
        return limits[key]


def _times(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices) and factor.shape.rank:
        factor = tf.squeeze(factor, 0)  # IndexedSlices hold only some of the rows
    return with_values(gradient, lambda values: values * tf.cast(factor, values.dtype))


class ClipSumTransform(GradientTransform):
    """Gradient transform that makes the optimizer clip the sum over the replicas."""

    clips_after_reduce = True

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        self.has_seen_gradients |= self.observes(call.optimizer)
