"""Gradients that are NaN or infinite."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of

_SHOWN = 4


class NonFiniteGradient(Rule):
    """The first step at which a gradient holds NaN or Inf, and in which variables.

    Read before clipping: with `global_clipnorm`, one NaN makes every clipped gradient NaN.
    Gradients travel from the loss towards the input, so of the variables hit at the same
    step the one nearest the output is named as the layer where it began.
    """

    name = "nonfinite"

    def __init__(self) -> None:
        self._last_finite: tuple[int, float] | None = None

    def reset(self) -> None:
        self._last_finite = None

    def check(self, window: Window) -> Iterator[Finding]:
        bad = window.present & ~np.isfinite(window.norms)
        hit = np.flatnonzero(bad.any(axis=1))
        end = hit[0] if len(hit) else len(window)
        if end > 0:
            self._last_finite = int(window.steps[end - 1]), float(window.global_norm[end - 1])
        if len(hit):
            yield self._finding(window, int(hit[0]), np.flatnonzero(bad[hit[0]]))

    def _finding(self, window: Window, row: int, columns: np.ndarray) -> Finding:
        names = [window.variables[column] for column in columns]
        kind = "NaN" if np.isnan(window.norms[row, columns]).any() else "Inf"
        nearest = names[-1]
        before = (
            f" The last finite gradient, at step {self._last_finite[0]}, had norm "
            f"{self._last_finite[1]:.3g}."
            if self._last_finite
            else " No step before it had a finite gradient."
        )
        return Finding(
            step=int(window.steps[row]),
            layer=layer_of(nearest),
            rule=self.name,
            severity="error",
            message=(
                f"The gradient is {kind} in {len(names)} of {len(window.variables)} variables "
                f"({_listed(names)}); the one nearest the output is {nearest}.{before}"
            ),
            advice=self._advice(),
            evidence={
                "variables": names,
                "kind": kind,
                "last_finite_step": self._last_finite[0] if self._last_finite else None,
                "last_finite_norm": self._last_finite[1] if self._last_finite else None,
            },
        )

    def _advice(self) -> str:
        if self._last_finite is None:
            return (
                "Look at the input data and the initial weights for NaN, and at the loss for "
                "log(0) or a division by zero."
            )
        return (
            "If the norms grew before this step, clip (global_clipnorm=1.0) and lower the "
            "learning rate; if they did not, look for NaN in this step's batch, log(0) or a "
            "division by zero. The weights after this step are not usable: restore a checkpoint."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
