"""Rule for clipping that changes no update."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._clip_advice import Updates
from gradkeeper.callbacks.rules._healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class ClipNever(Rule):
    """Configured clipping that has changed no update.

    Requires the configured limit (`window.scalars["clip_limit"]`); without it the rule reports
    nothing.

    Args:
        least: number of updates under a configured limit before a report.
    """

    name = "clip_never"

    def __init__(self, *, least: int = 500) -> None:
        if least < 1:
            raise ValueError(f"ClipNever needs least >= 1. Received: least={least}")
        self._least = least
        self._entered: list[float] = []
        self._first = 0
        self._is_settled = False
        self._healthy = HealthyNorms()

    def reset(self) -> None:
        self._healthy.reset()
        self._entered.clear()
        self._is_settled = False

    def check(self, window: Window) -> Iterator[Finding]:
        if self._is_settled or "clip_limit" not in window.scalars:
            return
        self._healthy.follow(window)
        updates = Updates.of(window)
        limited = np.flatnonzero(np.isfinite(updates.limit))
        rows = limited[: self._least - len(self._entered)]
        if not len(rows):
            return
        if not self._entered:
            self._first = int(updates.steps[rows[0]])
        self._entered.extend(updates.entered[rows].tolist())
        clips = bool(updates.clipped[rows].any())
        self._is_settled = clips or len(self._entered) >= self._least
        if self._is_settled and not clips:
            yield self._finding(float(updates.limit[rows[-1]]), int(updates.steps[rows[-1]]))

    def _finding(self, limit: float, last: int) -> Finding:
        useful = self._healthy.limit(last)
        largest = max(self._entered)
        return Finding(
            step=self._first,
            layer="",
            rule=self.name,
            severity="info",
            message=(
                f"Clipping at {limit:g} has changed none of {len(self._entered)} updates; the "
                f"largest norm before clipping is {largest:.3g}."
            ),
            advice=(
                f"Set {useful}, to clip the large steps, or keep the limit as a safeguard."
                if useful
                else "Keep the limit as a safeguard."
            ),
            evidence={
                "limit": limit,
                "updates": len(self._entered),
                "largest": largest,
                "recommended": useful.value if useful else None,
                "last_step": last,
            },
        )
