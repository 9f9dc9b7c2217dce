"""From recorded train steps to findings."""

from collections.abc import Iterator, Sequence

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules import Rule
from gradkeeper.callbacks.tap.keras_private import print_msg
from gradkeeper.callbacks.window import Window


class Judge:
    """Asks the rules, keeps the first finding of each rule and layer, and tells it once.

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
        for finding in sorted(self._found(window), key=lambda finding: finding.step):
            key = finding.rule, finding.layer
            if key not in self._findings:
                self._findings[key] = finding
                self.tell(f"GradientMonitor {finding}")

    def tell(self, message: str) -> None:
        """Prints through Keras's own channel."""
        # On a line of its own: a progress bar may stand on the current one.
        if self._verbose:
            print_msg(f"\n{message}")

    def _found(self, window: Window) -> Iterator[Finding]:
        for rule in self._rules:
            for finding in rule.check(window):
                if rule.judges_warmup or finding.step >= self._warmup:
                    yield finding
