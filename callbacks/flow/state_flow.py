"""Gradient norms of one recurrent state over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

Reach = Literal["vanishing", "stable", "exploding"]

# A stable gradient changes by at most this factor over the whole sequence.
_STABLE_WITHIN = 100.0


@dataclass(frozen=True, eq=False)
class StateFlow:
    """Gradient of the loss with respect to a state after each time step.

    The gradient is the total derivative, through all later steps and all layers. The first state,
    h, is the output of the layer. If the layer has a cell state c, the gradient of h holds the c
    of the same step fixed, and the gradient of c includes its path through h.

    Attributes:
        layer: path of the layer.
        state: "h", "c", or "state 2" and so on.
        norms: L2 norm over the state's units, [time, batch]; NaN at masked steps.
        backwards: whether the layer processes the sequence from its end.
    """

    layer: str
    state: str
    norms: np.ndarray
    backwards: bool = False

    @property
    def name(self) -> str:
        """Return layer and state, such as "lstm h"."""
        return f"{self.layer} {self.state}"

    @cached_property
    def norm(self) -> np.ndarray:
        """Return the L2 norm over all examples, [time]; NaN if all are masked."""
        there = ~np.isnan(self.norms)
        squares = np.where(there, np.square(self.norms, dtype=np.float64), 0.0).sum(axis=1)
        return np.where(there.any(axis=1), np.sqrt(squares), np.nan)

    def percentiles(self, q: Sequence[float] = (5, 50, 95)) -> np.ndarray:
        """Return percentiles of the norm over the examples, [len(q), time]; NaN if all masked."""
        result = np.full((len(q), len(self.norms)), np.nan)
        there = ~np.isnan(self.norms).all(axis=1)
        result[:, there] = np.nanpercentile(self.norms[there], q, axis=1)
        return result

    @cached_property
    def norm_back(self) -> np.ndarray:
        """Return the root mean square of the norms over the examples, [steps].

        Index 0 is the last unmasked step that the layer processes, separately for each example.
        """
        steps = self.norms if self.backwards else self.norms[::-1]
        back = np.full(steps.shape, np.nan)
        for example, column in enumerate(steps.T):
            real = column[~np.isnan(column)]
            back[: len(real), example] = real
        there = ~np.isnan(back)
        back = back[there.any(axis=1)]
        there = ~np.isnan(back)
        squares = np.where(there, np.square(back), 0.0).sum(axis=1)
        return np.sqrt(squares / there.sum(axis=1))

    @cached_property
    def slope(self) -> float:
        """Return the change of the logarithm of the norm per step back in time.

        The slope is a least squares fit over the positive norms in `norm_back`. It is 0 for a
        single step or if all norms are 0, -inf if only one norm is positive and the others are
        0, and NaN if no norm is finite.
        """
        norm = self.norm_back
        time = np.arange(len(norm))
        known = np.isfinite(norm)
        positive = known & (norm > 0)
        if not known.any():
            return np.nan
        if positive.sum() < 2:
            return -np.inf if known.sum() > 1 and positive.any() else 0.0
        return float(np.polyfit(time[positive], np.log(norm[positive]), 1)[0])

    @property
    def growth(self) -> float:
        """Return the factor by which the norm changes per step back in time."""
        return float(np.exp(self.slope))

    @property
    def half_life(self) -> float:
        """Return the number of steps back in time in which the norm halves.

        The half-life is infinite if the norm does not decrease, and NaN if no norm is finite.
        """
        if np.isnan(self.slope):
            return np.nan
        return float(np.log(2) / -self.slope) if self.slope < 0 else np.inf

    @property
    def reach(self) -> Reach:
        """Classify the gradient as vanishing, stable or exploding.

        The gradient is stable if, at its `growth`, the norm changes by at most a factor of 100
        over the sequence. A gradient that is not finite is exploding.
        """
        norm = self.norm_back
        if not norm.size or not np.isfinite(norm).all():
            return "exploding"
        change = self.slope * (norm.size - 1)
        if abs(change) <= np.log(_STABLE_WITHIN):
            return "stable"
        return "vanishing" if change < 0 else "exploding"

    def __str__(self) -> str:
        if self.reach == "stable":
            steps = len(self.norm_back)
            return f"{self.name}: stable, times {self.growth ** (steps - 1):.3g} over {steps} steps"
        half = "" if not np.isfinite(self.half_life) else f", halves in {self.half_life:.3g} steps"
        return f"{self.name}: {self.reach}, times {self.growth:.3g} per step back{half}"
