"""The clipping limit that the gradient norms of a run suggest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._healthy import LEAST, HealthyNorms
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.window import Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ClipLimit:
    """A limit, and what it would have done in the recorded steps.

    Attributes:
        global_clipnorm: the limit.
        touched: share of the healthy steps whose gradient it would have changed, 0 to 1.
        caught: how many explosions it would have clipped.
        explosions: how many there were; a gradient that is not finite is none, since clipping
            cannot mend it.
    """

    global_clipnorm: float
    touched: float
    caught: int
    explosions: int

    @property
    def caught_share(self) -> float:
        """Share of the explosions that it would have clipped; NaN if there were none."""
        return self.caught / self.explosions if self.explosions else float("nan")

    def __str__(self) -> str:
        touched = f"global_clipnorm={self.global_clipnorm:.3g} touches {100 * self.touched:.1f} %"
        if not self.explosions:
            return f"{touched} of the healthy steps; there was no explosion"
        caught = f"{self.caught} of {self.explosions} explosions"
        return f"{touched} of the healthy steps and catches {caught}"


class ClipAdvisor:
    """Recommends a clipping limit from the gradient norms of a run.

        print(ClipAdvisor(monitor.history))

    Reads the norms before any clipping, in a long run those of the latest steps. The limits are
    estimated from the healthy steps: those before the first explosion and before the first
    gradient that is not finite. They hold for this model, this loss and this batch size.

    Args:
        history: what a `GradientMonitor` recorded.
        shares: the shares of the healthy steps that `limits` are to change, each between 0 and 1.
        explosion: a rule whose thresholds say what counts as an explosion.

    Attributes:
        recommended: the one limit to use, that of the findings too: the 95th percentile of the
            healthy steps, by a robust estimate that norms which grow at the end hardly move. None if the run is not a usable basis.
        problem: why the run is not a usable basis, and what to do instead; "" if it is usable.
        limits: a limit for each share.
        steps: how many healthy steps were read, at most 10,000.
        end: the train step that ended them; None if all steps were healthy.
        nonfinite: how many steps had a gradient that was not finite.

    Raises:
        ValueError: if a share is not between 0 and 1, or no step has a finite gradient.
    """

    def __init__(
        self,
        history: GradientHistory,
        *,
        shares: Sequence[float] = (0.01, 0.05, 0.10),
        explosion: ExplodingGradient | None = None,
    ) -> None:
        if not all(0 < share < 1 for share in shares):
            raise ValueError(f"A share lies between 0 and 1. Received: shares={tuple(shares)}")
        recent = history.recent
        if not np.isfinite(recent.global_norm).any():
            raise ValueError("The history has no step with a finite gradient.")
        healthy = HealthyNorms((explosion or ExplodingGradient()).explosions)
        judged = healthy.follow(recent)
        self._norms = healthy.norms
        self._explosions = recent.global_norm[judged.rows[judged.explodes]]
        self.steps, self.end = len(self._norms), healthy.end
        self.nonfinite = len(recent) - len(judged.rows)
        self.limits = [
            self.effect_of(float(np.quantile(self._norms, 1 - share)))
            for share in shares
            if self.steps
        ]
        self.problem = self._problem(recent)
        self._limit = None if self.problem else healthy.limit()
        self.recommended = self.effect_of(self._limit.value) if self._limit else None

    def effect_of(self, global_clipnorm: float) -> ClipLimit:
        """Return what this limit would have done.

        Raises:
            ValueError: if it is not positive.
        """
        if not global_clipnorm > 0:
            raise ValueError(
                f"global_clipnorm must be positive. Received: global_clipnorm={global_clipnorm}"
            )
        return ClipLimit(
            global_clipnorm,
            touched=float(np.mean(self._norms > global_clipnorm)) if self.steps else float("nan"),
            caught=int(np.sum(self._explosions > global_clipnorm)),
            explosions=len(self._explosions),
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw how the norms of the healthy steps are spread, and the limits.

        Args:
            path: the file to save the picture in; none by default.
        """
        from gradkeeper.callbacks.plots import plot_clip_limits

        figure = plot_clip_limits(self._norms, self.limits)
        if path is not None:
            figure.savefig(path)
        return figure

    def _problem(self, recent: Window) -> str:
        first = FirstStep()
        first.follow(recent)
        scaling = first.advice() if first.step == 0 else ""
        if scaling:
            return f"{scaling} Record a run with scaled data, and ask again."
        if self.steps >= LEAST:
            return ""
        if self.end is None:
            return f"Train at least {LEAST} steps, and ask again."
        return (
            f"Step {self.end} explodes or is not finite. Lower the learning rate tenfold, train "
            "100 steps, and ask again."
        )

    def __str__(self) -> str:
        until = "" if self.end is None else f" before step {self.end}, which ended them"
        basis = f"{self.steps:,} healthy steps{until}"
        if self.recommended is None:
            return f"No limit can be recommended from {basis}. {self.problem}"
        lines = [
            f"Recommended: {self._limit} ({basis}).",
            "It and other limits:",
            *(f"  {limit}" for limit in [self.recommended, *self.limits]),
        ]
        if self.nonfinite:
            lines.append(f"  {self.nonfinite} steps had no finite gradient: no limit mends those")
        return "\n".join(lines)
