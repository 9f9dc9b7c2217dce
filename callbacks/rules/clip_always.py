"""Clipping that acts on every step."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._clipping import Updates
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._recent import Recent
from gradkeeper.callbacks.rules._text import listed
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window


class ClipAlways(Rule):
    """Nearly all updates are changed by clipping.

    With plain gradient descent every step then has the same length: this is the normalized
    gradient method, with learning rate times limit as its step. With an adaptive optimizer (Adam,
    RMSprop, Lion), whose step length does not scale with the gradient, it changes little.

    Args:
        share: share of the updates that clipping changed, at least, 0 to 1.
        memory: updates that the share is taken over.
        least: updates that must have been seen.
    """

    name = "clip_always"

    def __init__(self, *, share: float = 0.95, memory: int = 200, least: int = 100) -> None:
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

    def reset(self) -> None:
        self._first = FirstStep()
        for recent in (self._clipped, self._entered, self._shrunk, self._steps):
            recent.clear()
        self._was_always = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
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
            evidence = {
                "share": float(share[row]),
                "updates": int(seen[row]),
                "percentile_90": float(np.nanpercentile(entered[row], 90)),
                "percentile_50": float(np.nanpercentile(entered[row], 50)),
                "factor": float(np.nanpercentile(shrunk[row], 90)),
                "limit": _known(updates.limit[row]),
                "learning_rate": _known(updates.learning_rate[row]),
                "last_step": int(updates.steps[row]),
            }
            yield self._finding(int(np.nanmin(steps[row])), evidence, window.facts)
        self._was_always = bool(always[-1]) if len(always) else self._was_always

    def _finding(
        self, first: int, evidence: dict[str, float | int | None], facts: RunFacts
    ) -> Finding:
        limit = evidence["limit"]
        of = "" if limit is None else f" of {limit:g}"
        return Finding(
            step=first,
            layer="",
            rule=self.name,
            severity="warning",
            message=(
                f"Clipping{of} changed {evidence['share']:.0%} of the last {evidence['updates']} "
                f"updates; the norm that entered it has median {evidence['percentile_50']:.3g} "
                f"and 90th percentile {evidence['percentile_90']:.3g}."
            ),
            advice=self._first.advice() or _advice(evidence, facts),
            evidence=evidence,
        )


def _advice(evidence: dict[str, float | int | None], facts: RunFacts) -> str:
    factor, rate = evidence["factor"], evidence["learning_rate"]
    limit = f"global_clipnorm={evidence['percentile_90']:.2g}, the 90th percentile"
    keep = (
        f"To clip only the largest gradients, raise the limit ({limit}) and keep the learning rate."
    )
    if facts.is_adaptive:
        return (
            f"The step length of {listed(facts.optimizers)} does not scale with the gradient, so "
            f"that this limit changes little. {keep}"
        )
    assert factor is not None
    new = f" to {rate / factor:.2g}" if rate is not None else ""
    lower = (
        "Every step has the same length, learning rate times limit. To have it follow the "
        f"gradient, raise the limit about {factor:.2g}-fold ({limit}) and lower the learning rate "
        f"as much{new}."
    )
    if facts.is_adaptive is False:
        return lower
    return f"With SGD: {lower} With Adam, RMSprop or Lion: {keep}"


def _known(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None
