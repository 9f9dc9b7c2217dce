"""Methods that compute clipping factors from gradients, on any backend."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from gradkeeper._arguments import integer, number

Arrays: TypeAlias = dict[str, np.ndarray]
# State of a method by name: arrays before the training, tensors in the train step.
State: TypeAlias = dict[str, Any]


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

    def limit(self, norm: Any, state: State) -> tuple[Any, State]:
        new = _with_norm(norm, state)
        return _percentile_of(new, self.percentile), new


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

    def limit(self, norm: Any, state: State) -> tuple[Any, State]:
        limit = _percentile_of(state, self.percentile)
        limit = ops.where(ops.less(state["count"], self.warmup), norm, limit)
        return limit, _with_norm(norm, state)


def _no_norms(window: int) -> Arrays:
    return {"norms": np.zeros(window, np.float32), "count": np.array(0)}


def _with_norm(norm: Any, state: State) -> State:
    """Return the state with this norm in place of the oldest one."""
    window = state["norms"].shape[0]
    return {
        "norms": _put(state["norms"], ops.mod(state["count"], window), norm),
        "count": state["count"] + 1,
    }


def _put(values: Any, place: Any, value: Any) -> Any:
    """Return the values, [n], with another value at this place; unchanged if there is none."""
    return ops.where(ops.equal(ops.arange(values.shape[0]), place), value, values)


def _percentile_of(state: State, percentile: float) -> Any:
    """Return the percentile of the norms, interpolated linearly as in NumPy."""
    norms, count = state["norms"], state["count"]
    known = ops.less(ops.arange(norms.shape[0]), count)
    ordered = ops.sort(ops.where(known, norms, np.float32(np.inf)))
    last = ops.cast(ops.clip(count - 1, 0, norms.shape[0] - 1), "float32")
    place = percentile / 100 * last
    below = ops.floor(place)
    above = ops.minimum(below + 1, last)
    low, high = (ops.take(ordered, ops.cast(each, "int32")) for each in (below, above))
    return low + (place - below) * (high - low)


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

    def limit(self, norm: Any, state: State) -> tuple[Any, State]:
        count, mean, variance = state["count"], state["mean"], state["variance"]
        deviation = ops.sqrt(variance)
        z = (norm - mean) / (deviation + 1e-6)
        brought_down = mean + self.z_threshold * deviation / (z / self.z_threshold)
        is_warm = ops.greater_equal(count, self.warmup)
        limit = ops.where(is_warm & (z > self.z_threshold), brought_down, norm)
        first = _put(state["first"], count, norm)
        new = self.alpha * mean + (1 - self.alpha) * limit
        spread = self.alpha * variance + (1 - self.alpha) * ops.square(limit - new)
        return limit, {
            "first": first,
            "count": count + 1,
            "mean": ops.where(is_warm, new, ops.mean(first)),
            "variance": ops.where(is_warm, spread, ops.var(first)),
        }


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

    def factor(self, gradient: Any, variable: Any) -> Any:
        """Return the factor of each unit, in a shape that broadcasts to the gradient."""
        norms, weights = (_unit_norms(ops.cast(each, "float32")) for each in (gradient, variable))
        most = self.clipping * ops.maximum(weights, self.eps)
        return ops.where(norms > most, most / ops.maximum(norms, 1e-6), ops.ones_like(norms))


def _unit_norms(tensor: Any) -> Any:
    """Return norms over all axes except the last (the units), or the norm of a vector."""
    axes = tuple(range(max(len(tensor.shape) - 1, 1))) if tensor.shape else None
    return ops.sqrt(ops.sum(ops.square(tensor), axis=axes, keepdims=True))


# `first_values` returns the initial state by name. `limit` returns the limit for a finite norm, a
# float32 scalar, and the next state.
LimitMethod: TypeAlias = AutoClip | Percentile | ZClip
Method: TypeAlias = LimitMethod | AGC

METHODS: dict[str, type[Method]] = {
    "autoclip": AutoClip,
    "percentile": Percentile,
    "zclip": ZClip,
    "agc": AGC,
}


def factor_of(norm: Any, highest: Any) -> Any:
    """Return the factor that reduces a norm to `highest`; 1 if the norm is not above it."""
    return ops.where(norm > highest, highest / norm, ops.ones_like(norm))


def part_of(state: Arrays, number: int) -> Arrays:
    """Return the state of the limit with this index from that of all limits."""
    start = f"{number}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def require_shapes(state: State, given: Arrays) -> None:
    """Raise ValueError if the given state belongs to another method or other options."""
    shapes = {name: tuple(each.shape) for name, each in state.items()}
    received = {name: value.shape for name, value in given.items()}
    if shapes != received:
        raise ValueError(f"The state must have the shapes {shapes}. Received: shapes={received}")
