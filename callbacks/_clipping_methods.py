"""Methods that compute clipping factors from gradients, in the graph."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks.instrument.graph import make_variable, when

Arrays: TypeAlias = dict[str, np.ndarray]
Variables: TypeAlias = dict[str, tf.Variable]


@dataclass(frozen=True)
class AutoClip:
    """Limit at a percentile of the last norms, including the norm of the current step.

    Seetharaman et al. 2020, arXiv:2007.14469. The paper uses the norms of all steps.

    Args:
        percentile: the percentile, 0 to 100.
        window: the largest number of steps over which it is computed.
    """

    percentile: float = 10.0
    window: int = 1000

    def __post_init__(self) -> None:
        number("percentile", self.percentile, "[0, 100]")
        integer("window", self.window)

    def first_values(self) -> Arrays:
        return _no_norms(self.window)

    def limit(self, norm: tf.Tensor, variables: Variables) -> tf.Tensor:
        _, after, count = _add_norm(norm, variables)
        return _percentile_of(after, count + 1, self.percentile)


@dataclass(frozen=True)
class Percentile:
    """Limit at a percentile of the last norms, excluding the norm of the current step.

    Args:
        percentile: the percentile, 0 to 100.
        window: the largest number of steps over which it is computed.
        warmup: number of first steps without a limit.
    """

    percentile: float = 95.0
    window: int = 1000
    warmup: int = 25

    def __post_init__(self) -> None:
        number("percentile", self.percentile, "[0, 100]")
        integer("warmup", self.warmup)
        integer("window", self.window, minimum=self.warmup)

    def first_values(self) -> Arrays:
        return _no_norms(self.window)

    def limit(self, norm: tf.Tensor, variables: Variables) -> tf.Tensor:
        before, _, count = _add_norm(norm, variables)
        limit = _percentile_of(before, count, self.percentile)
        return tf.where(count < self.warmup, norm, limit)


def _no_norms(window: int) -> Arrays:
    return {"norms": np.zeros(window, np.float32), "count": np.array(0)}


def _add_norm(norm: tf.Tensor, variables: Variables) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Add a norm; return the last norms before and after, and the number of norms before."""
    before, count = variables["norms"].read_value(), variables["count"].read_value()
    slot = tf.reshape(count % before.shape[0], [1, 1])
    after = tf.tensor_scatter_nd_update(before, slot, tf.reshape(norm, [1]))
    variables["norms"].assign(after)
    variables["count"].assign(count + 1)
    return before, after, count


def _percentile_of(norms: tf.Tensor, count: tf.Tensor, percentile: float) -> tf.Tensor:
    """Return the percentile of the first `count` norms, interpolated linearly as in NumPy."""
    window = norms.shape[0]
    known = tf.minimum(count, window)
    there = tf.range(window, dtype=known.dtype) < known
    ordered = tf.sort(tf.where(there, norms, np.float32(np.inf)))
    last = tf.maximum(known - 1, 0)
    place = percentile / 100 * tf.cast(last, tf.float32)
    below = tf.cast(tf.floor(place), tf.int32)
    above = tf.minimum(below + 1, tf.cast(last, tf.int32))
    low, high = tf.gather(ordered, below), tf.gather(ordered, above)
    return low + (place - tf.cast(below, tf.float32)) * (high - low)


@dataclass(frozen=True)
class ZClip:
    """Limit for norms with a z-score above a threshold. A higher score gives a lower limit.

    With running mean m and standard deviation s of the norms, a norm with score z > z_threshold
    has the limit m + s * z_threshold**2 / z ("reciprocal" clipping of Kumar et al. 2025,
    arXiv:2504.02507).

    Args:
        z_threshold: the threshold, in standard deviations above the mean.
        alpha: smoothing factor of mean and variance.
        warmup: number of first steps without a limit. They initialise mean and variance.
    """

    z_threshold: float = 2.5
    alpha: float = 0.97
    warmup: int = 25

    def __post_init__(self) -> None:
        number("z_threshold", self.z_threshold)
        number("alpha", self.alpha, "(0, 1)")
        integer("warmup", self.warmup, minimum=2)

    def first_values(self) -> Arrays:
        first, zero = np.zeros(self.warmup, np.float32), np.array(0, np.float32)
        return {"first": first, "count": np.array(0), "mean": zero, "variance": zero}

    def limit(self, norm: tf.Tensor, variables: Variables) -> tf.Tensor:
        count, mean, variance = (
            variables[name].read_value() for name in ("count", "mean", "variance")
        )
        deviation = tf.sqrt(variance)
        z = (norm - mean) / (deviation + 1e-6)
        brought_down = mean + self.z_threshold * deviation / (z / self.z_threshold)
        is_warm = count >= self.warmup
        limit = tf.where(is_warm & (z > self.z_threshold), brought_down, norm)

        def begin() -> None:
            slot = tf.reshape(count, [1, 1])
            first = tf.tensor_scatter_nd_update(variables["first"], slot, tf.reshape(norm, [1]))
            variables["first"].assign(first)
            variables["mean"].assign(tf.reduce_mean(first))
            variables["variance"].assign(tf.math.reduce_variance(first))

        def go_on() -> None:
            new = self.alpha * mean + (1 - self.alpha) * limit
            variables["mean"].assign(new)
            square = tf.square(limit - new)
            variables["variance"].assign(self.alpha * variance + (1 - self.alpha) * square)

        when(~is_warm, begin)
        when(is_warm, go_on)
        variables["count"].assign(count + 1)
        return limit


@dataclass(frozen=True)
class AGC:
    """Adaptive gradient clipping of each unit, relative to the norm of the unit's weights.

    The gradient norm of a unit (a column of a kernel, a whole bias) is limited to `clipping`
    times the norm of the unit's weights. Brock et al. 2021, arXiv:2102.06171, equation 3.

    Args:
        clipping: the largest ratio of gradient norm to weight norm.
        eps: lower bound of the weight norm, so that units with zero weights can be trained.
    """

    clipping: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        number("clipping", self.clipping)
        number("eps", self.eps)

    def factor(self, gradient: Any, variable: Any) -> tf.Tensor:
        """Return the factor of each unit, in a shape that broadcasts to the gradient."""
        norms, weights = (
            _unit_norms(tf.cast(tf.convert_to_tensor(each), tf.float32))
            for each in (gradient, variable)
        )
        most = self.clipping * tf.maximum(weights, self.eps)
        return tf.where(norms > most, most / tf.maximum(norms, 1e-6), tf.ones_like(norms))


def _unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    """Return norms over all axes except the last (the units), or the norm of a vector."""
    axes = list(range(max(tensor.shape.rank - 1, 1))) if tensor.shape.rank else None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))


# `first_values` returns the initial state by name. `limit` returns the limit for a finite norm, a
# float32 scalar, and updates the state.
LimitMethod: TypeAlias = AutoClip | Percentile | ZClip
Method: TypeAlias = LimitMethod | AGC

METHODS: dict[str, type[Method]] = {
    "autoclip": AutoClip,
    "percentile": Percentile,
    "zclip": ZClip,
    "agc": AGC,
}


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
        shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        given = {name: value.shape for name, value in state.items()}
        if shapes != given:
            raise ValueError(f"The state must have the shapes {shapes}. Received: shapes={given}")
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
            highest = self._method.limit(norm, self.variables)
            return tf.where(norm > highest, highest / norm, tf.ones_like(norm))

        return tf.cond(tf.math.is_finite(norm), finite, lambda: tf.ones_like(norm))
