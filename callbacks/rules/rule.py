"""What every rule is."""

from collections.abc import Iterator

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.window import Window


class Rule:
    """Reads a run window by window, in order, and yields a finding where one begins.

    A rule may yield the same trouble again: the monitor keeps the first finding of each
    rule and layer. State from one window to the next lives on the rule; `reset` clears it.
    What a rule finds must not depend on how the run is cut into windows. A rule that raises is
    told once, with its exception, and left out from then on; training and other rules go on.

    A rule of one's own:

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
        name: the rule's name in findings, and in a list of rules.
        judges_warmup: whether what the rule says of the monitor's first `warmup` steps counts.
    """

    name = "rule"
    judges_warmup = False

    def check(self, window: Window) -> Iterator[Finding]:
        """Yields what is wrong in these steps, which follow on the last window's."""
        raise NotImplementedError(f"{type(self).__name__} must define check(window).")

    def reset(self) -> None:
        """Forgets the run."""
