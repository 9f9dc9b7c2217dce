"""Methods that compute a clipping limit from gradient norms, in the graph."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks._arguments import check_least
from gradkeeper.callbacks.instrument.graph import make_variable, when


class Limit(ABC):
    """Limit of one replica. All replicas receive the same norms and compute the same limit.

    Args:
        device: device of the variables; None for TensorFlow's choice.
        first: initial values of the variables, by name.
    """

    def __init__(self, device: str | None, **first: np.ndarray) -> None:
        self._first_values = first
        self._variables = {name: make_variable(value, device) for name, value in first.items()}

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Return the values of the variables, by name."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load the state. Call it outside of the graph.

        Raises:
            ValueError: if the shapes are those of another method or other options.
        """
        shapes = {name: value.shape for name, value in self._first_values.items()}
        given = {name: value.shape for name, value in state.items()}
        if shapes != given:
            raise ValueError(f"The state must have the shapes {shapes}. Received: shapes={given}")
        for name, value in state.items():
            self._variables[name].assign(value)

    def reset(self) -> None:
        """Reset the variables to their initial values."""
        self.load(self._first_values)

    @abstractmethod
    def next(self, norm: tf.Tensor) -> tf.Tensor:
        """Return the limit for a gradient with this global norm, and update the state.

        Args:
            norm: the norm, a finite float32 scalar.
        """


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
        _check_percentile(self.percentile)
        check_least("window", self.window, 1)

    def begin(self, device: str | None) -> Limit:
        """Return the limit for one replica."""
        return _Percentile(self.percentile, self.window, 0, with_own=True, device=device)


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
        _check_percentile(self.percentile)
        check_least("warmup", self.warmup, 1)
        check_least("window", self.window, self.warmup)

    def begin(self, device: str | None) -> Limit:
        """Return the limit for one replica."""
        return _Percentile(self.percentile, self.window, self.warmup, with_own=False, device=device)


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
        if not self.z_threshold > 0:
            raise ValueError(
                f"z_threshold must be positive. Received: z_threshold={self.z_threshold}"
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1). Received: alpha={self.alpha}")
        check_least("warmup", self.warmup, 2)

    def begin(self, device: str | None) -> Limit:
        """Return the limit for one replica."""
        return _Scores(self, device)


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
        if not self.clipping > 0 or not self.eps > 0:
            raise ValueError(
                "clipping and eps must be positive. "
                f"Received: clipping={self.clipping}, eps={self.eps}"
            )


Method: TypeAlias = AutoClip | Percentile | ZClip | AGC

METHODS: dict[str, type[Method]] = {
    "autoclip": AutoClip,
    "percentile": Percentile,
    "zclip": ZClip,
    "agc": AGC,
}


class _Percentile(Limit):
    def __init__(
        self, percentile: float, window: int, warmup: int, *, with_own: bool, device: str | None
    ) -> None:
        super().__init__(device, norms=np.zeros(window, np.float32), count=np.array(0))
        self._share, self._window, self._warmup = percentile / 100, window, warmup
        self._with_own = with_own

    def next(self, norm: tf.Tensor) -> tf.Tensor:
        before, count = self._variables["norms"].read_value(), self._variables["count"].read_value()
        slot = tf.reshape(count % self._window, [1, 1])
        norms = tf.tensor_scatter_nd_update(before, slot, tf.reshape(norm, [1]))
        if self._with_own:
            limit = self._percentile(norms, count + 1)
        else:
            limit = self._percentile(before, count)
        self._variables["norms"].assign(norms)
        self._variables["count"].assign(count + 1)
        return tf.where(count < self._warmup, norm, limit)

    def _percentile(self, norms: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Return the percentile of the first `count` norms, interpolated linearly as in NumPy."""
        known = tf.minimum(count, self._window)
        there = tf.range(self._window, dtype=known.dtype) < known
        ordered = tf.sort(tf.where(there, norms, np.float32(np.inf)))
        place = self._share * tf.cast(tf.maximum(known - 1, 0), tf.float32)
        below = tf.cast(tf.floor(place), tf.int32)
        above = tf.minimum(below + 1, tf.cast(tf.maximum(known - 1, 0), tf.int32))
        low, high = tf.gather(ordered, below), tf.gather(ordered, above)
        return low + (place - tf.cast(below, tf.float32)) * (high - low)


class _Scores(Limit):
    _EPS = 1e-6

    def __init__(self, method: ZClip, device: str | None) -> None:
        super().__init__(
            device,
            first=np.zeros(method.warmup, np.float32),
            count=np.array(0),
            mean=np.array(0, np.float32),
            variance=np.array(0, np.float32),
        )
        self._method = method

    def next(self, norm: tf.Tensor) -> tf.Tensor:
        method, variables = self._method, self._variables
        count, mean = variables["count"].read_value(), variables["mean"].read_value()
        variance = variables["variance"].read_value()
        deviation = tf.sqrt(variance)
        z = (norm - mean) / (deviation + self._EPS)
        brought_down = mean + method.z_threshold * deviation / (z / method.z_threshold)
        is_warm = count >= method.warmup
        limit = tf.where(is_warm & (z > method.z_threshold), brought_down, norm)

        def begin() -> None:
            slot = tf.reshape(count, [1, 1])
            first = tf.tensor_scatter_nd_update(variables["first"], slot, tf.reshape(norm, [1]))
            variables["first"].assign(first)
            variables["mean"].assign(tf.reduce_mean(first))
            variables["variance"].assign(tf.math.reduce_variance(first))

        def go_on() -> None:
            new = method.alpha * mean + (1 - method.alpha) * limit
            variables["mean"].assign(new)
            square = tf.square(limit - new)
            variables["variance"].assign(method.alpha * variance + (1 - method.alpha) * square)

        when(~is_warm, begin)
        when(is_warm, go_on)
        variables["count"].assign(count + 1)
        return limit


def _check_percentile(percentile: float) -> None:
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100]. Received: percentile={percentile}")
