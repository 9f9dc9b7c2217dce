"""The healthy steps of a run, and the clipping limit that they suggest."""

from typing import NamedTuple

import numpy as np

from gradkeeper.callbacks.rules._explosions import Explosions, Judged
from gradkeeper.callbacks.window import Window

# Of normally distributed logarithms: the 95th percentile in standard deviations, and a standard
# deviation in median absolute deviations.
_P95 = 1.645
_MAD = 1.4826
_MOST = 10_000
LEAST = 10  # healthy steps that a limit needs


def robust_limit(norms: np.ndarray) -> float:
    """Return the limit below which about 95 % of these norms lie, not moved by outliers.

    The median of the log norms plus 1.645 of their standard deviations, which are estimated by
    1.4826 median absolute deviations. Norms that grow in the last steps hardly move it.

    Args:
        norms: positive global norms, [steps].
    """
    logs = np.log(norms)
    median = np.median(logs)
    return float(np.exp(median + _P95 * _MAD * np.median(np.abs(logs - median))))


class Limit(NamedTuple):
    """A recommended limit of the global norm.

    Attributes:
        value: the limit.
        share: share of the healthy steps whose norm lies below it, 0 to 1.
    """

    value: float
    share: float

    def __str__(self) -> str:
        return (
            f"global_clipnorm={self.value:.2g}, above the norm of {self.share:.0%} of the healthy "
            "steps"
        )


class HealthyNorms:
    """Follows the global norms that enter the clipping, up to the first explosion of a run.

    The first step whose gradient is not finite ends them as well, unless it was skipped. Of a
    long run the first 10,000 are kept.

    Args:
        explosions: what counts as an explosion; the defaults of `ExplodingGradient` if None.

    Attributes:
        end: the train step that ended them; None while all steps are healthy.
    """

    def __init__(self, explosions: Explosions | None = None) -> None:
        self._explosions = explosions or Explosions()
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._explosions.reset()
        self.end: int | None = None
        self._steps = np.zeros(0, np.int64)
        self._norms = np.zeros(0)

    def follow(self, window: Window) -> Judged:
        """Go on with these steps, and return what was judged of them."""
        judged = self._explosions.judge(window.global_norm, window.scalar("loss"))
        if self.end is None:
            self._add(window, judged)
        return judged

    @property
    def norms(self) -> np.ndarray:
        """The positive norms of the healthy steps, [steps]."""
        return self._norms

    def limit(self, until: int | None = None) -> Limit | None:
        """Return the recommended limit; None if fewer than 10 steps were healthy.

        Args:
            until: the last train step to count; all by default.
        """
        norms = self._norms if until is None else self._norms[self._steps <= until]
        if len(norms) < LEAST:
            return None
        value = robust_limit(norms)
        return Limit(value, float(np.mean(norms <= value)))

    def _add(self, window: Window, judged: Judged) -> None:
        ends = window.present.any(axis=1) & ~np.isfinite(window.global_norm) & ~window.skipped
        ends[judged.rows[judged.explodes]] = True
        last = int(np.argmax(ends)) if ends.any() else len(window)
        if last < len(window):
            self.end = int(window.steps[last])
        gathered = window.scalar("unclipped_norm")[:last]
        entered = np.where(np.isnan(gathered), window.global_norm[:last], gathered)
        is_kept = window.updated[:last].any(axis=1) & np.isfinite(entered) & (entered > 0)
        self._steps = np.append(self._steps, window.steps[:last][is_kept])[:_MOST]
        self._norms = np.append(self._norms, entered[is_kept])[:_MOST]
