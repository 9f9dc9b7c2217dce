"""Rule for gradients that are exactly zero."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import listed, span
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of


class DeadGradient(Rule):
    """Variables whose gradient is exactly zero while other variables train.

    Layers whose zero gradients begin at the same step are reported in one finding, and so are
    all layers whose zero gradients begin after an explosion. Steps are ignored if the variable
    has no gradient, or if the gradient of the whole model is zero or not finite.

    Args:
        patience: consecutive measured steps with a gradient of exactly zero.
    """

    name = "dead"

    def __init__(self, *, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f"DeadGradient needs patience >= 1. Received: patience={patience}")
        self._patience = patience
        self._streaks = Streaks()
        self._healthy = HealthyNorms()
        self.reset()

    def reset(self) -> None:
        self._streaks.clear()
        self._healthy.reset()
        self._first = FirstStep()
        self._died_after_explosion = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        self._healthy.follow(window)
        zero = window.norms == 0
        trains = np.isfinite(window.global_norm) & (window.global_norm > 0)
        counted = window.present & trains[:, None]
        lengths, starts = self._streaks.follow(window.variables, window.steps, zero, counted)
        reached = (lengths == self._patience) & zero & counted
        for row in np.flatnonzero(reached.any(axis=1)).tolist():
            first = int(starts[row, reached[row]].min())
            end = self._healthy.end
            is_after = end is not None and first >= end
            if not (is_after and self._died_after_explosion):
                hit = {layer_of(window.variables[each]) for each in np.flatnonzero(reached[row])}
                layers = [layer for layer in window.layers if layer in hit]
                dead = lengths[row] >= self._patience
                yield self._finding(window, row, layers, dead, (first, end if is_after else None))
            self._died_after_explosion |= is_after

    def _finding(
        self,
        window: Window,
        row: int,
        layers: list[str],
        dead: np.ndarray,
        steps: tuple[int, int | None],
    ) -> Finding:
        first, explosion = steps
        of_layers = [each for each in window.variables if layer_of(each) in layers]
        is_dead = dict(zip(window.variables, dead.tolist(), strict=True))
        names = [each for each in of_layers if is_dead[each]]
        last, norm = int(window.steps[row]), float(window.global_norm[row])
        return Finding(
            step=first,
            layer=layers[0],
            rule=self.name,
            severity="warning",
            message=(
                f"For {self._patience} measured steps ({span(first, last)}) the gradient of "
                f"{listed(names)} has been exactly zero ({len(names)} of {len(of_layers)} "
                f"variables of {listed(layers)}), while the global norm is {norm:.3g}."
            ),
            advice=self._advice(explosion),
            evidence={
                "variables": names,
                "layers": layers,
                "steps": self._patience,
                "last_step": last,
                "global_norm": norm,
            },
        )

    def _advice(self, explosion: int | None) -> str:
        if explosion is not None:
            return (
                f"The gradient of step {explosion} exploded or was not finite, and the gradient of "
                "this layer has been zero since then: follow the advice on that step first."
            )
        look = (
            "Check for ReLU units that are never active (lower the learning rate, or use LeakyReLU "
            "or GELU), gates or sigmoids saturated by large inputs, inputs or a mask with only "
            "zeros, a branch multiplied by zero, or an output detached from the loss."
        )
        return " ".join(filter(None, [self._first.advice(), look]))
