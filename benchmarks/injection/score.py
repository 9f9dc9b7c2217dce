"""Precision, recall and delays over many runs."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from injection.run import Outcome

GOAL = 0.95


@dataclass(frozen=True)
class Score:
    """Evaluation of the rules over several runs; a rule counts once per run.

    Attributes:
        faults: number of faulty runs.
        found: number of faulty runs whose fault was found by the required rule.
        true: number of findings that a fault explains.
        false: number of findings that no fault explains.
        delays: for each found fault with a known first step, the steps until the rule can report
            it.
        offs: for the same faults, the steps from the fault to the step that the finding names.
    """

    faults: int
    found: int
    true: int
    false: int
    delays: list[int]
    offs: list[int]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], rule: str | None = None) -> "Score":
        """Compute the score of one rule, or of all."""
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
        """Fraction of the faulty runs whose fault was found; NaN without faulty runs."""
        return self.found / self.faults if self.faults else float("nan")

    @property
    def precision(self) -> float:
        """Fraction of the findings that a fault explains; NaN without findings."""
        findings = self.true + self.false
        return self.true / findings if findings else float("nan")

    @property
    def delay(self) -> str:
        """Median and largest delay."""
        return _middle_and_largest(self.delays)

    @property
    def off(self) -> str:
        """Median and largest distance of the named step from the fault."""
        return _middle_and_largest(self.offs)


def goals(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    """Return for each goal whether it is met."""
    all_rules, nonfinite = Score.of(outcomes), Score.of(outcomes, "nonfinite")
    return {
        f"recall at least {GOAL}": not all_rules.recall < GOAL,
        f"precision at least {GOAL}": not all_rules.precision < GOAL,
        "non-finite gradients at the exact step": not any(nonfinite.delays + nonfinite.offs),
    }


def _count(rule: str | None, found: Iterable[set[str]]) -> int:
    return sum(len(each) if rule is None else rule in each for each in found)


def _middle_and_largest(steps: list[int]) -> str:
    return f"{statistics.median(steps):g}, {max(steps)}" if steps else ""
