"""Healthy steps of a run, and its explosions."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, with_count
from gradkeeper.callbacks.rules._series import FirstLevel, UsualNorm
from gradkeeper.callbacks.window import Window


class Judged(NamedTuple):
    """Explosion decisions for the steps of a window.

    Attributes:
        rows: indices of the rows with a finite positive norm, [finite].
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
        number("ratio", self.ratio, "(1, inf]")
        number("beyond", self.beyond, "[1, inf]")
        number("absolute", self.absolute, "(0, inf]")
        integer("memory", self.memory, minimum=integer("warmup", self.warmup))
        self._usual = UsualNorm(memory=self.memory, warmup=self.warmup)
        self._first_norms, self._first_losses = FirstLevel(self.warmup), FirstLevel(self.warmup)

    def follow(self, window: Window) -> Judged:
        """Classify the steps of the next window.

        A gradient of exactly zero, for example of examples with weight 0, is no level to compare
        with.
        """
        is_finite = np.isfinite(window.global_norm)
        rows = np.flatnonzero(is_finite & (window.global_norm > 0))
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
        is_unhealthy = window.present.any(axis=1) & ~is_finite & ~window.skipped
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
        steps: number of these healthy steps.
        first: the first of these train steps.
        last: the last of these train steps.
        replaces: the optimizer's clipping argument, which must be removed; "" for none.
    """

    value: float
    share: float
    steps: int
    first: int
    last: int
    replaces: str = ""

    def __str__(self) -> str:
        other = f" in place of {self.replaces}" if self.replaces else ""
        return (
            f"global_clipnorm={self.value:.2g}{other}, above the norm of {100 * self.share:.1f} % "
            f"of {with_count(self.steps, 'healthy step')}, {span(self.first, self.last)}"
        )


class HealthyNorms:
    """Global norms before clipping of the healthy steps of a run.

    The healthy steps end at the first explosion, or at the first step that has a non-finite
    gradient and was not skipped. The latest 10,000 norms before this step are kept.

    Args:
        explosions: explosion detector whose thresholds are used; None for the defaults of
            `ExplodingGradient`.

    Attributes:
        end: train step at which the healthy steps ended; None while all steps are healthy.
        explosions: global norm of each explosion, [explosions].
        nonfinite: number of steps without a finite gradient.
    """

    def __init__(self, explosions: Explosions | None = None) -> None:
        self._explosions = dataclasses.replace(explosions) if explosions else Explosions()
        self.end: int | None = None
        self.explosions = np.zeros(0)
        self.nonfinite = 0
        self._norms = np.zeros(0)
        self._steps = np.zeros(0, np.int64)
        self._replaces = ""

    def follow(self, window: Window) -> Judged:
        """Read the next window and return its explosion decisions."""
        judged = self._explosions.follow(window)
        self._replaces = window.facts.clipping if window.facts.clips_parts else ""
        exploded = window.global_norm[judged.rows[judged.explodes]]
        self.explosions = np.append(self.explosions, exploded)
        self.nonfinite += int(np.sum(~np.isfinite(window.global_norm)))
        if self.end is not None:
            return judged
        entered = norms_before_clipping(window)
        is_healthy = window.updated.any(axis=1) & np.isfinite(entered) & (entered > 0)
        if judged.is_unhealthy.any():
            end = int(np.argmax(judged.is_unhealthy))
            self.end = int(window.steps[end])
            is_healthy[end:] = False
        # Not cut after this window: `until` may name any of its steps.
        self._steps = np.append(self._steps[-_MOST:], window.steps[is_healthy])
        self._norms = np.append(self._norms[-_MOST:], entered[is_healthy])
        return judged

    def latest(self, until: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the latest 10,000 healthy train steps and their positive norms, [steps] each.

        Args:
            until: last train step to include; None for all steps.
        """
        is_included = self._steps <= (np.inf if until is None else until)
        return self._steps[is_included][-_MOST:], self._norms[is_included][-_MOST:]

    def limit(self, until: int | None = None) -> Limit | None:
        """Return the recommended limit; None with fewer than 10 healthy steps.

        The limit is an outlier-resistant estimate of the 95th percentile of the norms: its
        logarithm is the median of the log norms plus 1.645 times 1.4826 times their median
        absolute deviation. Norms that grow in the last steps hardly change it.

        Args:
            until: last train step to include; None for all steps.
        """
        steps, norms = self.latest(until)
        if len(norms) < LEAST:
            return None
        logs = np.log(norms)
        median = np.median(logs)
        value = float(np.exp(median + _P95 * _MAD * np.median(np.abs(logs - median))))
        share = float(np.mean(norms <= value))
        return Limit(value, share, len(norms), int(steps[0]), int(steps[-1]), self._replaces)


def norms_before_clipping(window: Window) -> np.ndarray:
    """Return the global norm before clipping of any kind, [steps]."""
    gathered = window.scalar("unclipped_norm")
    return np.where(np.isnan(gathered), window.global_norm, gathered)
