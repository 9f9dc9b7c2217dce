"""Healthy steps of a run, and its explosions."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradkeeper.callbacks.rules._series import FirstLevel, UsualNorm
from gradkeeper.callbacks.window import Window


class Judged(NamedTuple):
    """Explosion decisions for the steps of a window.

    Attributes:
        rows: indices of the rows with a finite norm, [finite].
        sudden: True where the norm jumped above the running median, bool [finite].
        explodes: True where the step is an explosion: the norm is `sudden`, or has grown above
            the first norms of the run, bool [finite].
        usual: reference norm, [finite]: the running median of the preceding norms where `sudden`
            is True, otherwise the median of the run's first norms. NaN for the first norm.
        is_unhealthy: True where the step is an explosion, or has a non-finite gradient and was
            not skipped, bool [steps].
    """

    rows: np.ndarray
    sudden: np.ndarray
    explodes: np.ndarray
    usual: np.ndarray
    is_unhealthy: np.ndarray


@dataclass(kw_only=True)
class Explosions:
    """Explosion detector for consecutive windows; arguments as for `ExplodingGradient`."""

    ratio: float = 100.0
    beyond: float = 10.0
    absolute: float = 1e4
    memory: int = 100
    warmup: int = 10

    def __post_init__(self) -> None:
        are_valid = self.ratio > 1 and self.beyond >= 1 and self.absolute > 0
        if not are_valid or not 1 <= self.warmup <= self.memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, beyond >= 1, absolute > 0 and "
                f"1 <= warmup <= memory. Received: ratio={self.ratio}, beyond={self.beyond}, "
                f"absolute={self.absolute}, memory={self.memory}, warmup={self.warmup}"
            )
        self._usual = UsualNorm(memory=self.memory, warmup=self.warmup)
        self._first_norms, self._first_losses = FirstLevel(self.warmup), FirstLevel(self.warmup)

    def follow(self, window: Window) -> Judged:
        """Classify the steps of the next window."""
        rows = np.flatnonzero(np.isfinite(window.global_norm))
        norms, losses = window.global_norm[rows], window.scalar("loss")[rows]
        usual, peak = self._usual.follow(norms)
        first_norm = self._first_norms.follow(norms)
        first_loss = self._first_losses.follow(losses)
        sudden = (norms > self.ratio * usual) & (norms > self.beyond * peak)
        has_risen = losses - first_loss >= (self.beyond - 1) * np.abs(first_loss)
        is_unknown, in_warmup = np.isnan(losses) | np.isnan(first_loss), np.isnan(usual)
        has_risen |= is_unknown & in_warmup
        grown = (norms > self.absolute) & (norms > self.ratio * first_norm) & has_risen
        explodes = sudden | grown
        is_unhealthy = (
            window.present.any(axis=1) & ~np.isfinite(window.global_norm) & ~window.skipped
        )
        is_unhealthy[rows[explodes]] = True
        return Judged(rows, sudden, explodes, np.where(sudden, usual, first_norm), is_unhealthy)


# For a normal distribution: the 95th percentile in standard deviations, and the ratio of the
# standard deviation to the median absolute deviation.
_P95 = 1.645
_MAD = 1.4826
_MOST = 10_000
LEAST = 10  # minimum number of healthy steps for a limit


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
        explosions: explosion detector whose thresholds are used; None for the defaults of
            `ExplodingGradient`.

    Attributes:
        end: train step at which the healthy steps ended; None while all steps are healthy.
        norms: positive norms of the healthy steps, [steps].
    """

    def __init__(self, explosions: Explosions | None = None) -> None:
        self._explosions = dataclasses.replace(explosions) if explosions else Explosions()
        self.end: int | None = None
        self.norms = np.zeros(0)
        self._steps = np.zeros(0, np.int64)

    def follow(self, window: Window) -> Judged:
        """Read the next window and return its explosion decisions."""
        judged = self._explosions.follow(window)
        if self.end is not None:
            return judged
        entered = norms_before_clipping(window)
        is_healthy = window.updated.any(axis=1) & np.isfinite(entered) & (entered > 0)
        if judged.is_unhealthy.any():
            end = int(np.argmax(judged.is_unhealthy))
            self.end = int(window.steps[end])
            is_healthy[end:] = False
        self._steps = np.append(self._steps, window.steps[is_healthy])[:_MOST]
        self.norms = np.append(self.norms, entered[is_healthy])[:_MOST]
        return judged

    def limit(self, until: int | None = None) -> Limit | None:
        """Return the recommended limit; None with fewer than 10 healthy steps.

        The limit is an outlier-resistant estimate of the 95th percentile of the norms: its
        logarithm is the median of the log norms plus 1.645 times 1.4826 times their median
        absolute deviation. Norms that grow in the last steps hardly change it.

        Args:
            until: last train step to include; None for all steps.
        """
        norms = self.norms if until is None else self.norms[self._steps <= until]
        if len(norms) < LEAST:
            return None
        logs = np.log(norms)
        median = np.median(logs)
        value = float(np.exp(median + _P95 * _MAD * np.median(np.abs(logs - median))))
        return Limit(value, float(np.mean(norms <= value)))


def norms_before_clipping(window: Window) -> np.ndarray:
    """Return the global norm before clipping of any kind, [steps]."""
    gathered = window.scalar("unclipped_norm")
    return np.where(np.isnan(gathered), window.global_norm, gathered)
