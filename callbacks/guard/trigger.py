"""Triggers that skip a step because of its gradient norm."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from gradkeeper._arguments import integer, number

# State of a trigger by name: arrays before the training, tensors in the train step.
TriggerState: TypeAlias = dict[str, Any]


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

    def first_state(self) -> TriggerState:
        """Return the state before the training."""
        return {}

    def refuses(self, norm: Any, state: TriggerState) -> Any:
        """Return True if a step with this global norm, a finite scalar, must be skipped."""
        return norm > self.bound

    def learn(self, norm: Any, state: TriggerState) -> TriggerState:
        """Return the state after a step with this norm was applied."""
        return state


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

    def first_state(self) -> TriggerState:
        """Return the state before the training."""
        return {"logs": np.zeros(self.window, np.float32), "taken": np.array(0)}

    def refuses(self, norm: Any, state: TriggerState) -> Any:
        """Return True if a step with this global norm, a finite scalar, must be skipped."""
        known = ops.less(ops.arange(self.window), state["taken"])
        count = ops.maximum(ops.sum(ops.cast(known, "float32")), 1.0)
        logs = ops.where(known, state["logs"], 0.0)
        mean = ops.sum(logs) / count
        square = ops.where(known, ops.square(logs - mean), 0.0)
        deviation = ops.maximum(ops.sqrt(ops.sum(square) / count), _LEAST_DEVIATION)
        score = (_log(norm) - mean) / deviation
        return (state["taken"] >= self.after) & (score > self.z)

    def learn(self, norm: Any, state: TriggerState) -> TriggerState:
        """Return the state after a step with this norm was applied."""
        is_slot = ops.equal(ops.arange(self.window), ops.mod(state["taken"], self.window))
        logs = ops.where(is_slot, _log(norm), state["logs"])
        return {"logs": logs, "taken": state["taken"] + 1}


Trigger: TypeAlias = NormAbove | NormZScore

# Equal norms have a deviation of 0. At the default z, this allows a norm 20 percent larger.
_LEAST_DEVIATION = math.log(1.2) / 6


def _log(norm: Any) -> Any:
    return ops.log(ops.maximum(ops.cast(norm, "float32"), 1e-30))
