"""Precision, recall and delays of many runs."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from injection.run import Outcome

GOAL = 0.95


@dataclass(frozen=True)
class Score:
    """What the rules made of some runs; a rule counts once per run.

    Attributes:
        faults: faulty runs.
        found: those whose fault was found by the rule that must find it.
        true: findings that a fault explains.
        false: findings that none explains.
        delays: of the faults found that began at a known step, steps until they could be told.
        offs: of the same, steps between the fault and the step that the finding names.
    """

    faults: int
    found: int
    true: int
    false: int
    delays: list[int]
    offs: list[int]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], rule: str | None = None) -> "Score":
        """The score of one rule, or of all."""
        faulty = [each for each in outcomes if each.run.must and rule in (None, each.run.must)]
        return cls(
            len(faulty),
            sum(each.hit is not None for each in faulty),
            _count(rule, (each.true for each in outcomes)),
            _count(rule, (each.false for each in outcomes)),
            [each.delay for each in faulty if each.delay is not None],
            [each.off for each in faulty if each.off is not None],
        )

    @property
    def recall(self) -> float:
        """Share of the faulty runs whose fault was found; NaN without any."""
        return self.found / self.faults if self.faults else float("nan")

    @property
    def precision(self) -> float:
        """Share of the findings that a fault explains; NaN without any."""
        findings = self.true + self.false
        return self.true / findings if findings else float("nan")

    @property
    def delay(self) -> str:
        """Median and largest delay."""
        return _middle_and_largest(self.delays)

    @property
    def off(self) -> str:
        """Median and largest distance of the named step."""
        return _middle_and_largest(self.offs)


def goals(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    """Whether each goal is met."""
    all_rules, nonfinite = Score.of(outcomes), Score.of(outcomes, "nonfinite")
    return {
        f"recall at least {GOAL}": not all_rules.recall < GOAL,
        f"precision at least {GOAL}": not all_rules.precision < GOAL,
        "non-finite gradients at their very step": not any(nonfinite.delays + nonfinite.offs),
    }


def _count(rule: str | None, found: Iterable[set[str]]) -> int:
    return sum(len(each) if rule is None else rule in each for each in found)


def _middle_and_largest(steps: list[int]) -> str:
    return f"{statistics.median(steps):g}, {max(steps)}" if steps else ""
