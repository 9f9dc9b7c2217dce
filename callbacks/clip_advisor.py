"""Which limit of clipping a run's own gradient norms suggest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.rules.exploding import ExplodingGradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ClipLimit:
    """A limit, and what it would have done in the recorded steps.

    Attributes:
        global_clipnorm: the limit.
        touched: share of the steps whose gradient it would have changed, 0 to 1.
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
            return f"{touched} of the steps; there was no explosion"
        return f"{touched} of the steps and catches {self.caught} of {self.explosions} explosions"


class ClipAdvisor:
    """Reads off a run's gradient norms where a clipping limit would lie.

        print(ClipAdvisor(monitor.history))

    Looks at the norms before any clipping, in a long run those of the latest steps. A
    run that was clipped hard all along says little about how it would go without; the limits
    hold for this model, this loss and this batch size.

    Args:
        history: what a `GradientMonitor` recorded.
        shares: the shares of steps that the limits are to touch, each between 0 and 1.
        explosion: what counts as an explosion; a rule with its own thresholds.

    Attributes:
        limits: a limit for each share.
        steps: how many steps were looked at.
        nonfinite: how many more had a gradient that was not finite.

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
        norms = recent.global_norm
        finite = norms[np.isfinite(norms)]
        if not len(finite):
            raise ValueError("The history has no step with a finite gradient.")
        rule = ExplodingGradient() if explosion is None else explosion
        rule.reset()
        _, explodes, _ = rule.judge(norms, recent.scalar("loss"))
        self._norms, self._explosions = finite, finite[explodes]
        self.steps = len(finite)
        self.nonfinite = len(norms) - len(finite)
        self.limits = [self.effect_of(float(np.quantile(finite, 1 - share))) for share in shares]

    def effect_of(self, global_clipnorm: float) -> ClipLimit:
        """What this limit would have done.

        Raises:
            ValueError: if it is not positive.
        """
        if not global_clipnorm > 0:
            raise ValueError(
                f"global_clipnorm must be positive. Received: global_clipnorm={global_clipnorm}"
            )
        return ClipLimit(
            global_clipnorm,
            touched=float(np.mean(self._norms > global_clipnorm)),
            caught=int(np.sum(self._explosions > global_clipnorm)),
            explosions=len(self._explosions),
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draws how the norms are spread, and the limits; saved as well if a path is given."""
        from gradkeeper.callbacks.plots import plot_clip_limits

        figure = plot_clip_limits(self._norms, self.limits)
        if path is not None:
            figure.savefig(path)
        return figure

    def __str__(self) -> str:
        lines = [f"Of {self.steps:,} steps:", *(f"  {limit}" for limit in self.limits)]
        if self.nonfinite:
            lines.append(f"  {self.nonfinite} more had no finite gradient: no limit mends those")
        return "\n".join(lines)
