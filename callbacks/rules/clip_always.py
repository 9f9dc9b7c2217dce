"""Rule for clipping that changes nearly every update."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._clip_advice import Updates
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._healthy_steps import HealthyNorms, Limit
from gradkeeper.callbacks.rules._series import Recent
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window


class ClipAlways(Rule):
    """Clipping that changes nearly every update.

    With SGD without momentum, every step then has the same length, learning rate times limit:
    training becomes normalized gradient descent. With an adaptive optimizer (Adam, RMSprop,
    Lion), the step length does not scale with the gradient, and clipping changes little.

    Args:
        share: fraction of the updates changed by clipping from which the rule reports, 0 to 1.
        memory: number of last updates over which the fraction is taken.
        least: minimum number of updates before a report.
    """

    name = "clip_always"

    def __init__(self, *, share: float = 0.95, memory: int = 200, least: int = 50) -> None:
        if not 0 < share <= 1 or not 1 <= least <= memory:
            raise ValueError(
                "ClipAlways needs 0 < share <= 1 and 1 <= least <= memory. "
                f"Received: share={share}, memory={memory}, least={least}"
            )
        self._share = share
        self._least = least
        self._clipped = Recent(memory)
        self._entered = Recent(memory)
        self._shrunk = Recent(memory)
        self._steps = Recent(memory)
        self._was_always = False
        self._first = FirstStep()
        self._healthy = HealthyNorms()

    def reset(self) -> None:
        self._first = FirstStep()
        self._healthy.reset()
        for recent in (self._clipped, self._entered, self._shrunk, self._steps):
            recent.clear()
        self._was_always = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        self._healthy.follow(window)
        updates = Updates.of(window)
        clipped = self._clipped.through(updates.clipped.astype(float))
        entered = self._entered.through(updates.entered)
        shrunk = self._shrunk.through(updates.shrunk)
        steps = self._steps.through(updates.steps.astype(float))
        seen = (~np.isnan(clipped)).sum(axis=1)
        share = np.nansum(clipped, axis=1) / np.maximum(seen, 1)
        always = (seen >= self._least) & (share >= self._share)
        before = np.concatenate([[self._was_always], always[:-1]])
        for row in np.flatnonzero(always & ~before[: len(always)]):
            limit = self._healthy.limit(int(updates.steps[row]))
            evidence = {
                "share": float(share[row]),
                "updates": int(seen[row]),
                "percentile_90": float(np.nanpercentile(entered[row], 90)),
                "percentile_50": float(np.nanpercentile(entered[row], 50)),
                "factor": float(np.nanpercentile(shrunk[row], 90)),
                "limit": _known(updates.limit[row]),
                "learning_rate": _known(updates.learning_rate[row]),
                "recommended": limit.value if limit else None,
                "last_step": int(updates.steps[row]),
            }
            advice = self._first.advice() or _advice(evidence, limit, window.facts)
            yield self._finding(int(np.nanmin(steps[row])), evidence, advice)
        self._was_always = bool(always[-1]) if len(always) else self._was_always

    def _finding(self, first: int, evidence: dict[str, float | int | None], advice: str) -> Finding:
        limit = evidence["limit"]
        of = "" if limit is None else f" at {limit:g}"
        return Finding(
            step=first,
            layer="",
            rule=self.name,
            severity="warning",
            message=(
                f"Clipping{of} changed {evidence['share']:.0%} of the last {evidence['updates']} "
                f"updates. The norm before clipping has median {evidence['percentile_50']:.3g} "
                f"and 90th percentile {evidence['percentile_90']:.3g}."
            ),
            advice=advice,
            evidence=evidence,
        )


def _advice(evidence: dict[str, float | int | None], limit: Limit | None, facts: RunFacts) -> str:
    if limit is None:
        return "Remove the limit and repeat the run to record its norms without clipping."
    rate = evidence["learning_rate"]
    keep = f"To clip only the largest gradients, set {limit}, and keep the learning rate."
    if facts.is_adaptive:
        return (
            f"The step length of {listed(facts.optimizers)} does not scale with the gradient, so "
            f"this limit changes little. {keep}"
        )
    factor = limit.value / evidence["limit"] if evidence["limit"] else evidence["factor"]
    assert factor is not None
    lowered = f" to {rate / factor:.2g}" if rate is not None else ""
    lower = (
        "Every step has the same length, learning rate times limit. To make the length follow "
        f"the gradient, set {limit}, and lower the learning rate {factor:.2g}-fold{lowered}."
    )
    if facts.is_adaptive is False:
        return lower
    return f"With SGD: {lower} With Adam, RMSprop or Lion: {keep}"


def _known(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None
