"""Recommendation of a clipping limit from the gradient norms of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper._arguments import number
from gradkeeper.callbacks._text import with_count
from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.rules.advice import FirstStep, bounded_activations
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.healthy_steps import LEAST, HealthyNorms
from gradkeeper.callbacks.run_facts import RunFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ClipLimit:
    """Clipping limit, and its effect on the recorded steps.

    Attributes:
        global_clipnorm: the limit.
        clip_fraction: share of the healthy steps that the limit would have clipped, 0 to 1.
        explosions_clipped: number of explosions that the limit would have clipped.
        explosions: number of explosions. Non-finite gradients are not counted, because clipping
            cannot fix them.
    """

    global_clipnorm: float
    clip_fraction: float
    explosions_clipped: int
    explosions: int

    @property
    def explosions_clipped_share(self) -> float:
        """Share of the explosions that the limit would have clipped; NaN without explosions."""
        return self.explosions_clipped / self.explosions if self.explosions else float("nan")

    def __str__(self) -> str:
        effect = (
            f"global_clipnorm={self.global_clipnorm:.3g} clips {100 * self.clip_fraction:.1f} % of "
            "the healthy steps"
        )
        if not self.explosions:
            return f"{effect}; no explosion occurred"
        of = with_count(self.explosions, "explosion")
        return f"{effect} and {self.explosions_clipped} of {of}"


class ClipAdvisor:
    """Recommendation of a clipping limit from the gradient norms of a run.

        print(ClipAdvisor(monitor.history))

    The estimate uses the norms before clipping of the healthy steps, at most of the latest 10,000.
    The healthy steps end at the first explosion or at the first non-finite gradient. The limits are
    valid for this model, this loss and this batch size.

    Args:
        history: the history of a `GradientMonitor`.
        shares: the shares of the healthy steps that `limits` clip, each between 0 and 1.
        explosion: the rule whose thresholds define an explosion; the default rule if None. With a
            rule, only the steps of `history.recent` are read.

    Attributes:
        recommended: the recommended limit, also used in findings: a robust estimate of the 95th
            percentile of the healthy steps, on which growing norms at the end have little
            effect. None if the run has too few healthy steps or unscaled data.
        problem: the reason why no limit is recommended, and what to do; "" if there is a limit.
        limits: one limit for each share.
        steps: number of healthy steps, at most 10,000.
        end: the first step that is not healthy; None if all steps are healthy.
        nonfinite: number of steps with a non-finite gradient.

    Raises:
        ValueError: if a share is not between 0 and 1, or if no step has a finite gradient.
    """

    def __init__(
        self,
        history: GradientHistory,
        *,
        shares: Sequence[float] = (0.01, 0.05, 0.10),
        explosion: ExplodingGradient | None = None,
    ) -> None:
        for share in shares:
            number("shares", share, "(0, 1)")
        first, healthy = history.estimates()
        if first.step is None:
            raise ValueError("The history has no step with a finite gradient. Record another run.")
        if explosion is not None:
            healthy = HealthyNorms(explosion.explosions)
            healthy.follow(history.recent)
        steps, self._norms = healthy.latest()
        self._explosions = healthy.explosions
        self.steps, self.end = len(steps), healthy.end
        self.nonfinite = healthy.nonfinite
        quantiles = [np.quantile(self._norms, 1 - share) for share in shares if self.steps]
        self.limits = [self.evaluate(float(quantile)) for quantile in quantiles]
        self.problem = self._problem(first, history.recent.facts)
        self._limit = None if self.problem else healthy.limit()
        self.recommended = self.evaluate(self._limit.value) if self._limit else None

    def evaluate(self, global_clipnorm: float) -> ClipLimit:
        """Return the effect of a limit on the recorded steps.

        Raises:
            ValueError: if `global_clipnorm` is not positive.
        """
        number("global_clipnorm", global_clipnorm)
        clipped = self._norms > global_clipnorm
        return ClipLimit(
            global_clipnorm,
            clip_fraction=float(np.mean(clipped)) if self.steps else float("nan"),
            explosions_clipped=int(np.sum(self._explosions > global_clipnorm)),
            explosions=len(self._explosions),
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Plot a histogram of the norms of the healthy steps, and the limits.

        Args:
            path: the file to save the figure to; not saved by default.
        """
        from gradkeeper.callbacks.reporting.plots import plot_clip_limits

        figure = plot_clip_limits(self._norms, self.limits)
        if path is not None:
            figure.savefig(path)
        return figure

    def _problem(self, first: FirstStep, facts: RunFacts) -> str:
        cause = first.advice(facts) if first.step == 0 else ""
        if cause:
            return f"{cause} Then record another run, and run ClipAdvisor again."
        if self.steps >= LEAST:
            return ""
        if self.end is None:
            return f"Train at least {LEAST} steps, and run ClipAdvisor again."
        remedy = bounded_activations(facts) or "Lower the learning rate tenfold."
        return (
            f"The gradient of step {self.end} explodes or is not finite. {remedy} Then train 100 "
            "steps, and run ClipAdvisor again."
        )

    def __str__(self) -> str:
        until = "" if self.end is None else f" before the first unhealthy step, {self.end}"
        if self.recommended is None:
            basis = f"{with_count(self.steps, 'healthy step')}{until}"
            return f"No limit can be recommended from {basis}. {self.problem}"
        lines = [
            f"Recommended: {self._limit}{until}.",
            "Effect of this and other limits:",
            *(f"  {limit}" for limit in [self.recommended, *self.limits]),
        ]
        if self.nonfinite:
            bad = with_count(self.nonfinite, "step")
            lines.append(f"  {bad} had no finite gradient, which no limit fixes")
        return "\n".join(lines)
