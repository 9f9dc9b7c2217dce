"""Rule for variables whose gradient is None."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of


class MissingGradient(Rule):
    """Trainable variables whose gradient is None from the first step, once per layer.

    A variable that had a gradient in an earlier step is not reported: it may be frozen later, or
    alternate with other variables.

    Args:
        patience: number of measured steps at the start of a run, each with a gradient of another
            variable, in which the gradient must be None.
    """

    name = "missing"
    active_during_warmup = True

    def __init__(self, *, patience: int = 5) -> None:
        if patience < 1:
            raise ValueError(f"MissingGradient needs patience >= 1. Received: patience={patience}")
        self._patience = patience
        self._streaks = Streaks()
        self._seen: set[str] = set()

    def reset(self) -> None:
        self._streaks.clear()
        self._seen.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        seen = np.array([name in self._seen for name in window.variables], bool)
        unseen = ~(np.logical_or.accumulate(window.present, axis=0) | seen)
        counted = np.broadcast_to(np.any(window.present, axis=1)[:, None], unseen.shape)
        lengths, starts = self._streaks.follow(window.variables, window.steps, unseen, counted)
        reached = (lengths == self._patience) & unseen & counted
        for row in np.flatnonzero(reached.any(axis=1)):
            by_layer: dict[str, list[int]] = {}
            for column in np.flatnonzero(reached[row]).tolist():
                by_layer.setdefault(layer_of(window.variables[column]), []).append(column)
            for layer, columns in by_layer.items():
                names = [window.variables[column] for column in columns]
                yield self._finding(int(starts[row, columns[0]]), layer, names)
        ever = np.any(window.present, axis=0)
        self._seen.update(n for n, is_seen in zip(window.variables, ever, strict=True) if is_seen)

    def _finding(self, first: int, layer: str, names: list[str]) -> Finding:
        return Finding(
            step=first,
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The gradient of {listed(names)} is None in the first {self._patience} measured "
                f"steps, from step {first} on: the optimizer does not update "
                f"{'this variable' if len(names) == 1 else 'these variables'}."
            ),
            advice=(
                "Check for a layer whose output the loss does not use, stop_gradient, a conversion "
                "to NumPy, or an operation without a gradient (argmax, round, a cast to integer). "
                "Set trainable=False if the layer is meant to stay unchanged."
            ),
            evidence={"variables": names, "steps": self._patience},
        )
