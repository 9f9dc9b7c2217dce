"""Registry of the rules by name, and the runner that applies them."""

import dataclasses
import re
import traceback
from collections.abc import Sequence

import numpy as np

from gradkeeper._arguments import choice
from gradkeeper.callbacks._text import print_failure, print_on_new_line
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.activation_growth import ActivationGrowth
from gradkeeper.callbacks.rules.attention_collapse import AttentionCollapse
from gradkeeper.callbacks.rules.attention_logit_growth import AttentionLogitGrowth
from gradkeeper.callbacks.rules.clipped_by_hand import ClippedByHand
from gradkeeper.callbacks.rules.clipping import ClipAlways, ClipNever
from gradkeeper.callbacks.rules.dead_and_missing import DeadGradient, MissingGradient
from gradkeeper.callbacks.rules.dead_units import DeadUnits
from gradkeeper.callbacks.rules.exploding import ExplodingGradient
from gradkeeper.callbacks.rules.loss_scale import LossNotScaled, LossScaleStuck
from gradkeeper.callbacks.rules.mask_lost import MaskLost
from gradkeeper.callbacks.rules.nonfinite import NonFiniteGradient
from gradkeeper.callbacks.rules.replica_disagreement import ReplicaDisagreement
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.rules.saturated import Saturated
from gradkeeper.callbacks.rules.spike import GradientSpike
from gradkeeper.callbacks.rules.update_ratio import UpdateRatio
from gradkeeper.callbacks.rules.vanishing import VanishingGradient, VanishingWithDepth
from gradkeeper.callbacks.window import Window

RULES: dict[str, type[Rule]] = {
    "nonfinite": NonFiniteGradient,
    "exploding": ExplodingGradient,
    "spike": GradientSpike,
    "vanishing": VanishingGradient,
    "vanishing_with_depth": VanishingWithDepth,
    "dead": DeadGradient,
    "missing": MissingGradient,
    "clip_always": ClipAlways,
    "clip_never": ClipNever,
    "clipped_by_hand": ClippedByHand,
    "update_ratio": UpdateRatio,
    "replica_disagreement": ReplicaDisagreement,
    "loss_scale_stuck": LossScaleStuck,
    "loss_not_scaled": LossNotScaled,
    "mask_lost": MaskLost,
    "dead_units": DeadUnits,
    "saturated": Saturated,
    "activation_growth": ActivationGrowth,
    "attention_collapse": AttentionCollapse,
    "attention_logit_growth": AttentionLogitGrowth,
}


def default_rules() -> list[Rule]:
    """Return every rule with its default thresholds, the default of `GradientMonitor`."""
    return [rule() for rule in RULES.values()]


def rules_from(specification: Sequence[Rule | str]) -> list[Rule]:
    """Return the rules of a list; a name stands for the rule with its default thresholds.

    Raises:
        TypeError: if `specification` is a single rule or name, or if an item is neither a rule
            nor a string.
        ValueError: if a name is not in `RULES`.
    """
    either = (
        "instances of gradkeeper.callbacks.rules.Rule or names of rules "
        f"({', '.join(map(repr, RULES))})"
    )
    if isinstance(specification, (str, Rule)):
        raise TypeError(
            f"rules must be a list of rules: {either}. Received: rules={specification!r}"
        )
    rules = list(specification)
    for each in rules:
        if not isinstance(each, (str, Rule)):
            raise TypeError(f"rules must contain {either}. Received: {each!r}")
    return [
        RULES[choice("rule", each, RULES)]() if isinstance(each, str) else each for each in rules
    ]


_SAME_EVENT = 100


class RuleRunner:
    """Rule runner that keeps and prints the first finding of each rule and layer.

    Advice that was printed for a finding at most 100 steps before is not printed again.

    If a rule raises, the name, class and code line of the rule are printed. The rule is disabled;
    the other rules continue.

    Args:
        rules: the rules to run.
        warmup: number of first train steps that only rules with `active_during_warmup` check.
        verbose: whether to print findings and messages.
    """

    def __init__(self, rules: Sequence[Rule], *, warmup: int, verbose: bool) -> None:
        self._rules = list(rules)
        self._warmup = warmup
        self._verbose = verbose
        self._findings: dict[tuple[str, str], Finding] = {}
        self._of_former_models: list[Finding] = []
        self._advised: dict[str, int] = {}  # the step for which a sentence was printed

    @property
    def findings(self) -> list[Finding]:
        """Findings in the order of their steps."""
        found = [*self._of_former_models, *self._findings.values()]
        return sorted(found, key=lambda finding: finding.step)

    def begin_run(self) -> None:
        """Reset the rules for another model, whose findings are reported again."""
        for rule in self._rules:
            rule.reset()
        self._of_former_models += self._findings.values()
        self._findings = {}

    def check(self, window: Window) -> list[Finding]:
        """Apply the rules to the train steps of a window, and return the findings that it adds."""
        new = []
        found = [finding for rule in list(self._rules) for finding in self._found(rule, window)]
        for finding in sorted(found, key=lambda finding: finding.step):
            key = finding.rule, finding.layer
            if key not in self._findings:
                self._findings[key] = finding
                new.append(finding)
                self.report(f"GradientMonitor {self._without_repetition(finding)}")
        return new

    def _without_repetition(self, finding: Finding) -> Finding:
        """Return the finding without the sentences of advice printed for the same event."""
        sentences = re.split(r"(?<=\.) (?=[A-Z])", finding.advice)
        since = finding.step - _SAME_EVENT
        new = [each for each in sentences if self._advised.get(each, -np.inf) < since]
        self._advised.update(dict.fromkeys(new, finding.step))
        if len(new) == len(sentences):
            return finding
        return dataclasses.replace(finding, advice=" ".join(["See the advice above.", *new]))

    def report(self, message: str) -> None:
        """Print a message if `verbose` is set."""
        if self._verbose:
            print_on_new_line(message)

    def _found(self, rule: Rule, window: Window) -> list[Finding]:
        found = []
        try:
            for finding in rule.check(window):
                if finding.step >= self._warmup or rule.active_during_warmup:
                    found.append(finding)
        except Exception as error:  # noqa: BLE001 (a custom rule may raise any exception)
            self._rules = [each for each in self._rules if each is not rule]
            source = f"the rule {rule.name!r} (class {type(rule).__name__}, {_place(rule, error)})"
            print_failure(
                source, error, "The rule is disabled; training and the other rules continue."
            )
        return found


def _place(rule: Rule, error: Exception) -> str:
    """Return the file and line of the rule at which the error occurred.

    For an error inside a library, this is the line of the rule that called the library. If no line
    of the rule was running, for example because `check` yielded an object that is not a finding,
    it is the first line of `check`.
    """
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for owner in type(rule).__mro__:
        codes = [getattr(each, "__code__", None) for each in vars(owner).values()]
        files = {code.co_filename for code in codes if code is not None}
        lines = [(code.co_filename, line) for code, line in frames if code.co_filename in files]
        if lines:
            return f"{lines[-1][0]}:{lines[-1][1]}"
    code = getattr(type(rule).check, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else type(rule).__module__
