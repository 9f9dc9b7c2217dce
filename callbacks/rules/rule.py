"""Base class of the rules."""

from collections.abc import Iterator
from typing import Any

from gradkeeper.callbacks.finding import Finding, Severity
from gradkeeper.callbacks.window import Window


class Rule:
    """Base class of rules, which read a run in consecutive windows and yield findings.

    A rule may yield the same finding repeatedly: the monitor keeps the first finding of each
    rule and layer. A rule keeps its state between windows in attributes, and `reset` clears
    them. Findings must not depend on how the run is divided into windows. If a rule raises, the
    monitor prints the exception once and disables the rule; training and other rules continue.

    Example of a custom rule:

        class LargeStep(Rule):
            name = "large_step"

            def check(self, window):
                for row in np.flatnonzero(window.applied_global_norm > 10):
                    yield Finding(
                        step=int(window.steps[row]), layer="", rule=self.name,
                        severity="warning", message="The update is large.",
                        advice="Lower the learning rate.",
                    )

    Attributes:
        name: name of the rule in findings and in a list of rules.
        active_during_warmup: True if findings in the monitor's first `warmup` steps are kept.
    """

    name = "rule"
    active_during_warmup = False

    def check(self, window: Window) -> Iterator[Finding]:
        """Yield the findings in the next window, which continues the previous one."""
        raise NotImplementedError(f"{type(self).__name__} must define check(window).")

    def reset(self) -> None:
        """Reset the state for another run."""

    def _finding(
        self,
        step: int,
        *,
        message: str,
        advice: str,
        layer: str = "",
        severity: Severity = "warning",
        **evidence: Any,
    ) -> Finding:
        advice = " ".join(advice.split())  # parts of an advice may be empty
        return Finding(int(step), layer, self.name, severity, message, advice, evidence)
