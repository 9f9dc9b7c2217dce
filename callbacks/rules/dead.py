"""Gradients that are exactly zero."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._streaks import Streaks
from gradkeeper.callbacks.rules._text import listed, span
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of


class DeadGradient(Rule):
    """A variable whose gradient is exactly zero while others train; told once per layer.

    Steps in which the variable has no gradient, or in which the whole gradient is zero or not
    finite, neither count nor break the row of zeros.

    Args:
        patience: measured steps in a row with a gradient of exactly zero.
    """

    name = "dead"

    def __init__(self, *, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f"DeadGradient needs patience >= 1. Received: patience={patience}")
        self._patience = patience
        self._streaks = Streaks()

    def reset(self) -> None:
        self._streaks.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        zero = window.norms == 0
        trains = np.isfinite(window.global_norm) & (window.global_norm > 0)
        counted = window.present & trains[:, None]
        lengths, starts = self._streaks.follow(window.variables, window.steps, zero, counted)
        reached = (lengths == self._patience) & zero & counted
        for row in np.flatnonzero(reached.any(axis=1)).tolist():
            hit = [window.variables[column] for column in np.flatnonzero(reached[row])]
            for layer in dict.fromkeys(map(layer_of, hit)):
                columns = window.layer_columns[window.layers.index(layer)]
                dead = columns[lengths[row, columns] >= self._patience]
                first = int(starts[row, columns[reached[row, columns]]].min())
                yield self._finding(window, row, layer, (columns, dead, first))

    def _finding(
        self, window: Window, row: int, layer: str, found: tuple[np.ndarray, np.ndarray, int]
    ) -> Finding:
        columns, dead, first = found
        names = [window.variables[column] for column in dead]
        last, norm = int(window.steps[row]), float(window.global_norm[row])
        return Finding(
            step=first,
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"For {self._patience} measured steps ({span(first, last)}) the gradient of "
                f"{listed(names)} has been exactly zero ({len(names)} of {len(columns)} variables "
                f"of {layer}), while the whole model's norm is {norm:.3g}."
            ),
            advice=(
                "Look for ReLU units that are never active (lower the learning rate, use "
                "LeakyReLU or GELU), inputs or a mask that are zero throughout, a branch "
                "multiplied by zero, a saturated sigmoid or softmax, or an output that is "
                "detached from the loss."
            ),
            evidence={
                "variables": names,
                "steps": self._patience,
                "last_step": last,
                "global_norm": norm,
            },
        )
