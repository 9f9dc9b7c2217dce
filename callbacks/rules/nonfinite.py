"""Gradients that are NaN or infinite."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._text import listed
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of

# Below it, gradients of no number of replicas add up to Inf in float32.
_FAR_FROM_INF = 1e30


@dataclass
class _Past:
    """What the rule knows of the steps before a row."""

    measured: int | None = None
    finite: tuple[int, float] | None = None
    is_bad: bool = False


class NonFiniteGradient(Rule):
    """The first step at which a gradient holds NaN or Inf, and in which variables.

    Read before clipping: with `global_clipnorm`, one NaN makes every clipped gradient NaN.
    Gradients travel from the loss towards the input, so of the variables hit at the same
    step the one nearest the output is named as the layer where it began. A step that loss
    scaling skipped for overflow changed no weight and is not one of these.
    """

    name = "nonfinite"
    judges_warmup = True

    def __init__(self) -> None:
        self._past = _Past()

    def reset(self) -> None:
        self._past = _Past()

    def check(self, window: Window) -> Iterator[Finding]:
        bad = window.present & ((window.nonfinite > 0) | ~np.isfinite(window.norms))
        bad_rows = bad.any(axis=1)
        past = self._past
        for row, step in enumerate(window.steps.tolist()):
            is_bad = bool(bad_rows[row])
            if is_bad and not window.skipped[row]:
                if not past.is_bad:
                    yield self._finding(window, row, np.flatnonzero(bad[row]))
                past.is_bad = True
            elif not is_bad and np.isfinite(window.global_norm[row]):
                past.finite, past.is_bad = (step, float(window.global_norm[row])), False
            past.measured = step

    def _finding(self, window: Window, row: int, columns: np.ndarray) -> Finding:
        step, after = int(window.steps[row]), self._past.measured
        names = [window.variables[column] for column in columns]
        counts = window.nonfinite[row, columns]
        kind = "NaN" if np.isnan(window.norms[row, columns]).any() else "Inf"
        thinned = after is not None and after < step - 1
        arose = f" It arose between step {after} and step {step}." if thinned else ""
        replicas = _nonfinite_replicas(window, row)
        on = f" It came from replica {', '.join(map(str, replicas))}." if replicas else ""
        if _came_from_elsewhere(window, row):
            on = " It came from a replica of another worker."
        evidence = {
            "variables": names,
            "kind": kind,
            "elements": int(counts.sum()),
            "after_step": after,
            "last_finite_step": self._past.finite[0] if self._past.finite else None,
            "last_finite_norm": self._past.finite[1] if self._past.finite else None,
        }
        return Finding(
            step=step,
            layer=layer_of(names[-1]),
            rule=self.name,
            severity="error",
            message=(
                f"The gradient is {kind} in {len(names)} of {len(window.variables)} variables "
                f"({listed(names)}), {_elements(int(counts.sum()))}; the one nearest the output "
                f"is {names[-1]}.{arose}{on}{self._before()}"
            ),
            advice=self._advice(),
            evidence=evidence | ({"replicas": replicas} if replicas else {}),
        )

    def _before(self) -> str:
        if self._past.finite is None:
            return " No step before it had a finite gradient."
        step, norm = self._past.finite
        return f" The last finite gradient, at step {step}, had norm {norm:.3g}."

    def _advice(self) -> str:
        if self._past.finite is None:
            return (
                "Look at the input data and the initial weights for NaN, and at the loss for "
                "log(0) or a division by zero."
            )
        return (
            "If the norms grew before this step, clip (global_clipnorm=1.0) and lower the "
            "learning rate; if they did not, look for NaN in this step's batch, log(0) or a "
            "division by zero. The weights after this step are not usable: restore a checkpoint."
        )


def _elements(count: int) -> str:
    if not count:
        return "whose elements are finite while the norm overflows"
    return f"{count:,} element{'s' if count > 1 else ''} in all"


def _came_from_elsewhere(window: Window, row: int) -> bool:
    """Whether the replicas of this process have gradients too small to add up to Inf."""
    norms = window.replica_global_norms[row]
    return len(norms) > 0 and bool(np.all(norms < _FAR_FROM_INF))


def _nonfinite_replicas(window: Window, row: int) -> list[int]:
    """The replicas whose own gradient is not finite; none on a single device."""
    norms = window.replica_global_norms[row]
    return (window.first_replica + np.flatnonzero(~np.isfinite(norms))).tolist()
