"""Rules for clipping that changes nearly every update, or none."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import listed, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Recent, finite_or_none
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms, Limit, norms_before_clipping
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

_CHANGED_BELOW = 0.9


class ClipAlways(Rule):
    """Clipping that changes nearly every update.

    With SGD without momentum, every step then has the same length, learning rate times limit:
    training becomes normalized gradient descent. With an adaptive optimizer (Adam, RMSprop,
    Lion), the step length does not scale with the gradient, and clipping changes little: the
    finding is a note. `clipvalue` and `clipnorm` limit each element or variable: an update counts
    as changed if its norm falls by at least 10 %.

    Args:
        share: fraction of the updates changed by clipping from which the rule reports, 0 to 1.
        memory: number of last updates over which the fraction is taken.
        least: minimum number of updates before a report.
    """

    name = "clip_always"

    def __init__(self, *, share: float = 0.95, memory: int = 200, least: int = 50) -> None:
        self._share = number("share", share, "(0, 1]")
        self._least = integer("least", least)
        self._memory = integer("memory", memory, minimum=self._least)
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._healthy = HealthyNorms()
        self._recent: dict[str, Recent] = defaultdict(partial(Recent, self._memory))
        self._was_always = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        self._healthy.follow(window)
        rows = _updates(window)
        with np.errstate(divide="ignore", invalid="ignore"):
            series = {
                "step": window.steps,
                "clipped": window.clipped & ~_changes_little(window),
                "norm": norms_before_clipping(window),
                "factor": 1.0 / window.clip_coefficient,
            }
        last = {
            name: self._recent[name].through(values[rows].astype(float))
            for name, values in series.items()
        }
        seen = (~np.isnan(last["clipped"])).sum(axis=1)
        share = np.nanmean(last["clipped"], axis=1)
        always = (seen >= self._least) & (share >= self._share)
        before = np.concatenate([[self._was_always], always])
        for at in np.flatnonzero(always & ~before[:-1]):
            yield self._always(window, rows[at], {name: last[name][at] for name in last})
        self._was_always = bool(before[-1])

    def _always(self, window: Window, row: int, last: Mapping[str, np.ndarray]) -> Finding:
        step = int(window.steps[row])
        limit = self._healthy.limit(step)
        numbers: dict[str, Any] = {
            "share": float(np.nanmean(last["clipped"])),
            "updates": int((~np.isnan(last["clipped"])).sum()),
            "percentile_90": float(np.nanpercentile(last["norm"], 90)),
            "percentile_50": float(np.nanpercentile(last["norm"], 50)),
            "factor": float(np.nanpercentile(last["factor"], 90)),
            "limit": finite_or_none(window.scalar("clip_limit")[row]),
            "learning_rate": finite_or_none(window.scalar("learning_rate")[row]),
            "recommended": limit.value if limit else None,
            "last_step": step,
        }
        at = "" if numbers["limit"] is None else f" at {numbers['limit']:g}"
        first = self._first.advice(window.facts)
        return self._finding(
            np.nanmin(last["step"]),
            severity="info" if window.facts.is_adaptive and not first else "warning",
            message=(
                f"Clipping{at} changed {numbers['share']:.0%} of the last {numbers['updates']} "
                f"updates. The norm before clipping has median {numbers['percentile_50']:.3g} "
                f"and 90th percentile {numbers['percentile_90']:.3g}."
            ),
            advice=first or _advice(numbers, limit, window.facts),
            **numbers,
        )


def _advice(numbers: Mapping[str, Any], limit: Limit | None, facts: RunFacts) -> str:
    if limit is None:
        return "Remove the limit and repeat the run to record its norms without clipping."
    rate = numbers["learning_rate"]
    keep = f"To clip only the largest gradients, set {limit}, and keep the learning rate."
    if facts.is_adaptive:
        return (
            f"The step length of {listed(facts.optimizers)} does not scale with the gradient, so "
            f"this limit changes little. {keep}"
        )
    is_global = numbers["limit"] and not facts.clips_parts
    factor = limit.value / numbers["limit"] if is_global else numbers["factor"]
    lowered = f" to {rate / factor:.2g}" if rate is not None else ""
    effect = (
        "The norm is reduced in every step."
        if facts.clips_parts
        else "Every step has the same length, learning rate times limit."
    )
    lower = (
        f"{effect} To make the length follow the gradient, set {limit}, and lower the learning "
        f"rate {factor:.2g}-fold{lowered}."
    )
    if facts.is_adaptive is False:
        return lower
    return f"With SGD: {lower} With Adam, RMSprop or Lion: {keep}"


class ClipNever(Rule):
    """Configured clipping that has changed no update.

    Requires the configured limit (`window.scalars["clip_limit"]`); without it the rule reports
    nothing.

    Args:
        least: number of updates under a configured limit before a report.
    """

    name = "clip_never"

    def __init__(self, *, least: int = 500) -> None:
        self._least = integer("least", least)
        self.reset()

    def reset(self) -> None:
        self._healthy = HealthyNorms()
        self._entered: list[float] = []
        self._first = 0
        self._is_settled = False

    def check(self, window: Window) -> Iterator[Finding]:
        if self._is_settled or "clip_limit" not in window.scalars:
            return
        self._healthy.follow(window)
        limits, rows = window.scalar("clip_limit"), _updates(window)
        rows = rows[np.isfinite(limits[rows])][: self._least - len(self._entered)]
        if not len(rows):
            return
        if not self._entered:
            self._first = int(window.steps[rows[0]])
        self._entered.extend(norms_before_clipping(window)[rows].tolist())
        clips = bool(window.clipped[rows].any())
        self._is_settled = clips or len(self._entered) >= self._least
        if self._is_settled and not clips:
            yield self._never(float(limits[rows[-1]]), int(window.steps[rows[-1]]))

    def _never(self, limit: float, last: int) -> Finding:
        useful = self._healthy.limit(last)
        updates, largest = len(self._entered), max(self._entered)
        return self._finding(
            self._first,
            severity="info",
            message=(
                f"Clipping at {limit:g} has changed none of {with_count(updates, 'update')}; the "
                f"largest norm before clipping is {largest:.3g}."
            ),
            advice=(
                f"Set {useful}, to clip the large steps, or keep the limit as a safeguard."
                if useful
                else "Keep the limit as a safeguard."
            ),
            limit=limit,
            updates=updates,
            largest=largest,
            recommended=useful.value if useful else None,
            last_step=last,
        )


def _changes_little(window: Window) -> np.ndarray:
    """Return True where clipping of elements or variables hardly changes the norm, [steps]."""
    if not window.facts.clips_parts:
        return np.zeros(len(window), bool)
    return ~(window.clip_coefficient < _CHANGED_BELOW)


def _updates(window: Window) -> np.ndarray:
    """Return the rows of the steps that applied a finite gradient, [updates]."""
    return np.flatnonzero(window.updated.any(axis=1) & np.isfinite(norms_before_clipping(window)))
