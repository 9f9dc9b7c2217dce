"""Gradients that grow out of proportion."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class ExplodingGradient(Rule):
    """A global norm far above what this run is used to, or large beyond doubt.

    Args:
        ratio: how many times the running median of the global norm is an explosion. Does not
            depend on the scale of the model or its loss.
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
        absolute: float = 1e4,
        memory: int = 100,
        warmup: int = 10,
    ) -> None:
        if ratio <= 1 or absolute <= 0 or not 1 <= warmup <= memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, absolute > 0 and 1 <= warmup <= memory. "
                f"Received: ratio={ratio}, absolute={absolute}, memory={memory}, warmup={warmup}"
            )
        self._ratio = ratio
        self._absolute = absolute
        self._warmup = warmup
        self._recent: deque[float] = deque(maxlen=memory)

    def reset(self) -> None:
        self._recent.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        for row, norm in enumerate(window.global_norm):
            if not np.isfinite(norm):
                continue
            usual = float(np.median(self._recent)) if len(self._recent) >= self._warmup else None
            sudden = usual is not None and norm > self._ratio * usual
            if sudden or norm > self._absolute:
                yield self._finding(window, row, float(norm), usual)
            self._recent.append(float(norm))

    def _finding(self, window: Window, row: int, norm: float, usual: float | None) -> Finding:
        share = np.where(np.isfinite(window.layer_norms[row]), window.layer_norms[row], 0.0)
        largest = int(np.argmax(share))
        layer = window.layers[largest]
        compared = (
            f"{norm / usual:,.0f} times the usual {usual:.3g}"
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
