"""Gradients that grow out of proportion."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._text import times
from gradkeeper.callbacks.rules._usual import UsualNorm
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class ExplodingGradient(Rule):
    """A global norm far above what this run is used to, or large beyond doubt.

    Args:
        ratio: how many times the running median of the global norm is an explosion. Does not
            depend on the scale of the model or its loss.
        beyond: how many times the run's highest level (largest median over ten steps) the norm
            must be as well: a run that has converged comes back to old norms, which is none.
        absolute: a global norm that is an explosion whatever came before; finds a network
            that explodes from its first step on.
        memory: steps that the running median looks back on.
        warmup: steps that must have been seen before `ratio` is asked.
    """

    name = "exploding"

    def __init__(
        self,
        *,
        ratio: float = 100.0,
        beyond: float = 10.0,
        absolute: float = 1e4,
        memory: int = 100,
        warmup: int = 10,
    ) -> None:
        if not ratio > 1 or not beyond >= 1 or not absolute > 0 or not 1 <= warmup <= memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, beyond >= 1, absolute > 0 and "
                f"1 <= warmup <= memory. Received: ratio={ratio}, beyond={beyond}, "
                f"absolute={absolute}, memory={memory}, warmup={warmup}"
            )
        self._ratio = ratio
        self._beyond = beyond
        self._absolute = absolute
        self._usual = UsualNorm(memory=memory, warmup=warmup)

    def reset(self) -> None:
        self._usual.reset()

    def check(self, window: Window) -> Iterator[Finding]:
        rows, explodes, usual = self.judge(window.global_norm)
        for row, before in zip(rows[explodes].tolist(), usual[explodes].tolist(), strict=True):
            yield self._finding(window, row, before if np.isfinite(before) else None)

    def judge(self, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Goes on with these global norms, [steps].

        Returns:
            The rows with a finite norm, and for each of them whether it is an explosion and the
            running median before it, NaN in the warm-up.
        """
        rows = np.flatnonzero(np.isfinite(norms))
        finite = norms[rows]
        usual = self._usual.follow(finite)
        sudden = (finite > self._ratio * usual.median) & (finite > self._beyond * usual.peak)
        return rows, sudden | (finite > self._absolute), usual.median

    def _finding(self, window: Window, row: int, usual: float | None) -> Finding:
        norm = float(window.global_norm[row])
        share = np.where(np.isfinite(window.layer_norms[row]), window.layer_norms[row], 0.0)
        largest = int(np.argmax(share))
        layer = window.layers[largest]
        compared = (
            f"{times(norm / usual)} the usual {usual:.3g}"
            if usual
            else f"above the bound of {self._absolute:g}"
        )
        return Finding(
            step=int(window.steps[row]),
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The gradient norm is {norm:.3g}, {compared}; most of it is in {layer} "
                f"({share[largest]:.3g})."
            ),
            advice=_advice(window, row),
            evidence={
                "norm": norm,
                "usual": usual,
                "layer_norm": float(share[largest]),
                "clipped": bool(window.clipped[row]),
            },
        )


def _advice(window: Window, row: int) -> str:
    first = (
        f"Clipping held what was applied to {window.applied_global_norm[row]:.3g}."
        if window.clipped[row]
        else "Clip: global_clipnorm near the usual norm (1.0 where you have no better idea)."
    )
    return (
        f"{first} If it happens often, lower the learning rate, or use gated cells or an "
        "orthogonal recurrent initializer."
    )
