"""How far back in time a gradient reaches in one layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

Reach = Literal["vanishing", "stable", "exploding"]

# Over the whole sequence, the gradient may change by this factor and be called stable.
_STABLE_WITHIN = 100.0


@dataclass(frozen=True, eq=False)
class StateFlow:
    """The gradient of the loss with respect to a state after each time step.

    It is the total derivative: through all later steps and all layers. The first state, h, is
    what the layer returns; where there is a cell state c, the gradient of h holds c fixed, and
    that of c counts its way through h as well.

    Attributes:
        layer: path of the layer.
        state: "h", "c", or "state 2" and so on.
        norms: L2 norm over the state's units, [time, batch]; NaN where the step is masked.
        backwards: whether the layer reads the sequence from its end.
    """

    layer: str
    state: str
    norms: np.ndarray
    backwards: bool = False

    @property
    def name(self) -> str:
        """Layer and state, such as "lstm h"."""
        return f"{self.layer} {self.state}"

    @cached_property
    def norm(self) -> np.ndarray:
        """L2 norm over all examples, [time]; NaN where every one is masked."""
        there = ~np.isnan(self.norms)
        squares = np.where(there, np.square(self.norms, dtype=np.float64), 0.0).sum(axis=1)
        return np.where(there.any(axis=1), np.sqrt(squares), np.nan)

    def percentiles(self, q: Sequence[float] = (5, 50, 95)) -> np.ndarray:
        """Percentiles of the norm over the examples, [len(q), time]; NaN where all are masked."""
        result = np.full((len(q), len(self.norms)), np.nan)
        there = ~np.isnan(self.norms).all(axis=1)
        result[:, there] = np.nanpercentile(self.norms[there], q, axis=1)
        return result

    @cached_property
    def norm_back(self) -> np.ndarray:
        """Root mean square over the examples, by steps back from each one's last step, [steps].

        The last step is the one that the layer reads last, and that is not masked.
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
        """Change of the logarithm of the norm for each step back in time; 0 for one step.

        By least squares over the steps with a norm above 0 in `norm_back`. Where the norm falls
        to 0 exactly it is minus infinity, where no norm is finite NaN.
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
        """The factor by which the norm changes for each step back in time."""
        return float(np.exp(self.slope))

    @property
    def half_life(self) -> float:
        """Steps back in time in which the norm halves; infinite where it does not fall.

        NaN where no norm is finite.
        """
        if np.isnan(self.slope):
            return np.nan
        return float(np.log(2) / -self.slope) if self.slope < 0 else np.inf

    @property
    def reach(self) -> Reach:
        """Whether the gradient vanishes or explodes on its way to the sequence's beginning.

        Stable where, at this growth, it changes by less than a factor of 100 over the sequence.
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
