"""Healthy steps of a run, and its explosions."""

from typing import NamedTuple

import numpy as np

from gradkeeper.callbacks.rules._series import FirstLevel, UsualNorm
from gradkeeper.callbacks.window import Window


class Judged(NamedTuple):
    """Explosion decisions for the steps that have a finite norm.

    Attributes:
        rows: indices of the rows with a finite norm, [finite].
        sudden: True where the norm jumped above the running median, bool [finite].
        grown: True where the norm has grown above the first norms of the run, bool [finite].
        usual: reference norm, [finite]: the running median of the preceding norms where `sudden`
            is True, otherwise the median of the run's first norms. NaN for the first norm.
    """

    rows: np.ndarray
    sudden: np.ndarray
    grown: np.ndarray
    usual: np.ndarray

    @property
    def explodes(self) -> np.ndarray:
        """True where the step is an explosion, bool [finite]."""
        return self.sudden | self.grown


class Explosions:
    """Explosion detector for consecutive windows; arguments as for `ExplodingGradient`."""

    def __init__(
        self,
        *,
        ratio: float = 100.0,
        beyond: float = 10.0,
        absolute: float = 1e4,
        memory: int = 100,
        warmup: int = 10,
    ) -> None:
        if not ratio > 1 or not beyond >= 1 or not absolute > 0 or not 1 <= warmup <= memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, beyond >= 1, absolute > 0 and "
                f"1 <= warmup <= memory. Received: ratio={ratio}, beyond={beyond}, "
                f"absolute={absolute}, memory={memory}, warmup={warmup}"
            )
        self._ratio = ratio
        self._beyond = beyond
        self.absolute = absolute
        self._usual = UsualNorm(memory=memory, warmup=warmup)
        self._first_norms, self._first_losses = FirstLevel(warmup), FirstLevel(warmup)

    def reset(self) -> None:
        """Reset the state for another run."""
        self._usual.reset()
        self._first_norms.reset()
        self._first_losses.reset()

    def judge(self, norms: np.ndarray, losses: np.ndarray) -> Judged:
        """Classify the next steps of the run.

        Args:
            norms: global norms, [steps].
            losses: losses of the same steps, [steps]; NaN where unknown.
        """
        rows = np.flatnonzero(np.isfinite(norms))
        finite, losses = norms[rows], losses[rows]
        usual = self._usual.follow(finite)
        first_norm = self._first_norms.follow(finite)
        first_loss = self._first_losses.follow(losses)
        sudden = (finite > self._ratio * usual.median) & (finite > self._beyond * usual.peak)
        has_risen = losses - first_loss >= (self._beyond - 1) * np.abs(first_loss)
        is_unknown, in_warmup = np.isnan(losses) | np.isnan(first_loss), np.isnan(usual.median)
        has_risen |= is_unknown & in_warmup
        grown = (finite > self.absolute) & (finite > self._ratio * first_norm) & has_risen
        return Judged(rows, sudden, grown, np.where(sudden, usual.median, first_norm))


# For a normal distribution: the 95th percentile in standard deviations, and the ratio of the
# standard deviation to the median absolute deviation.
_P95 = 1.645
_MAD = 1.4826
_MOST = 10_000
LEAST = 10  # minimum number of healthy steps for a limit


def robust_limit(norms: np.ndarray) -> float:
    """Return an outlier-resistant estimate of the 95th percentile of the norms.

    The logarithm of the estimate is the median of the log norms plus 1.645 times 1.4826 times
    their median absolute deviation. Norms that grow in the last steps hardly change it.

    Args:
        norms: positive global norms, [steps].
    """
    logs = np.log(norms)
    median = np.median(logs)
    return float(np.exp(median + _P95 * _MAD * np.median(np.abs(logs - median))))


class Limit(NamedTuple):
    """Recommended limit for the global norm.

    Attributes:
        value: limit on the global norm.
        share: fraction of the healthy steps whose norm is at most `value`, 0 to 1.
    """

    value: float
    share: float

    def __str__(self) -> str:
        return (
            f"global_clipnorm={self.value:.2g}, above the norm of {self.share:.0%} of the healthy "
            "steps"
        )


class HealthyNorms:
    """Global norms before clipping of the healthy steps of a run.

    The healthy steps end at the first explosion, or at the first step that has a non-finite
    gradient and was not skipped. The first 10,000 norms are kept.

    Args:
        explosions: explosion detector; None for one with the defaults of `ExplodingGradient`.

    Attributes:
        end: train step at which the healthy steps ended; None while all steps are healthy.
    """

    def __init__(self, explosions: Explosions | None = None) -> None:
        self._explosions = explosions or Explosions()
        self.reset()

    def reset(self) -> None:
        """Reset the state for another run."""
        self._explosions.reset()
        self.end: int | None = None
        self._steps = np.zeros(0, np.int64)
        self._norms = np.zeros(0)

    def follow(self, window: Window) -> Judged:
        """Read the next window and return its explosion decisions."""
        judged = self._explosions.judge(window.global_norm, window.scalar("loss"))
        if self.end is None:
            self._add(window, judged)
        return judged

    @property
    def norms(self) -> np.ndarray:
        """Positive norms of the healthy steps, [steps]."""
        return self._norms

    def limit(self, until: int | None = None) -> Limit | None:
        """Return the recommended limit; None with fewer than 10 healthy steps.

        Args:
            until: last train step to include; None for all steps.
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
