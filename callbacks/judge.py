"""From recorded train steps to findings."""

import traceback
from collections.abc import Sequence

from gradkeeper.callbacks.fault import tell_fault
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules import Rule
from gradkeeper.callbacks.tap.keras_private import print_msg
from gradkeeper.callbacks.window import Window


class Judge:
    """Asks the rules, keeps the first finding of each rule and layer, and tells it once.

    When a rule raises, its name, its class and the line of its code are printed. The rule is left
    out from then on; the others go on.

    Args:
        rules: who judges.
        warmup: first train steps that only rules with `judges_warmup` judge.
        verbose: whether to print findings and messages.
    """

    def __init__(self, rules: Sequence[Rule], *, warmup: int, verbose: bool) -> None:
        self._rules = list(rules)
        self._warmup = warmup
        self._verbose = verbose
        self._findings: dict[tuple[str, str], Finding] = {}

    @property
    def findings(self) -> list[Finding]:
        """What was found, by step."""
        return sorted(self._findings.values(), key=lambda finding: finding.step)

    def judge(self, window: Window) -> None:
        """Judges further train steps."""
        found = [finding for rule in list(self._rules) for finding in self._found(rule, window)]
        for finding in sorted(found, key=lambda finding: finding.step):
            key = finding.rule, finding.layer
            if key not in self._findings:
                self._findings[key] = finding
                self.tell(f"GradientMonitor {finding}")

    def tell(self, message: str) -> None:
        """Prints through Keras's own channel."""
        # On a line of its own: a progress bar may stand on the current one.
        if self._verbose:
            print_msg(f"\n{message}")

    def _found(self, rule: Rule, window: Window) -> list[Finding]:
        found = []
        try:
            for finding in rule.check(window):
                if finding.step >= self._warmup or rule.judges_warmup:
                    found.append(finding)
        except Exception as error:  # noqa: BLE001 (a user's rule raises what it likes)
            self._rules = [each for each in self._rules if each is not rule]
            source = f"the rule {rule.name!r} (class {type(rule).__name__}, {_place(rule, error)})"
            tell_fault(source, error, "It is left out; training and the other rules go on.")
        return found


def _place(rule: Rule, error: Exception) -> str:
    """File and line of the rule's own code at which it failed.

    For an error inside a library, the line of the rule that called it. Where no line of the rule
    was running, as when `check` yields what is no finding, the first line of `check`.
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
