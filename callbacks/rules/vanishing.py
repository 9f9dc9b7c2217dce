"""Layers that the gradient does not reach."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class VanishingGradient(Rule):
    """A layer whose gradient stays negligible beside the largest layer's.

    Args:
        ratio: norm of the layer over norm of the largest layer, below which it is negligible.
        patience: consecutive steps for which that must hold.
    """

    name = "vanishing"

    def __init__(self, *, ratio: float = 1e-6, patience: int = 50) -> None:
        if not 0 < ratio < 1 or patience < 1:
            raise ValueError(
                "VanishingGradient needs 0 < ratio < 1 and patience >= 1. "
                f"Received: ratio={ratio}, patience={patience}"
            )
        self._ratio = ratio
        self._patience = patience
        self._lasting: dict[str, int] = {}

    def reset(self) -> None:
        self._lasting.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        for row, norms in enumerate(window.layer_norms):
            finite = norms[np.isfinite(norms)]
            largest = finite.max() if len(finite) else 0.0
            for layer, norm in zip(window.layers, norms, strict=True):
                negligible = largest > 0 and norm < self._ratio * largest
                self._lasting[layer] = self._lasting.get(layer, 0) + 1 if negligible else 0
                if self._lasting[layer] == self._patience:
                    yield self._finding(int(window.steps[row]), layer, norm, largest)

    def _finding(self, step: int, layer: str, norm: float, largest: float) -> Finding:
        first = step - self._patience + 1
        return Finding(
            step=first,
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"For {self._patience} steps the gradient of {layer} has been below "
                f"{self._ratio:g} of the largest layer's ({norm:.3g} against {largest:.3g})."
            ),
            advice=(
                "Use gated cells, residual connections or LayerNormalization, an activation "
                "that does not saturate (ReLU with an identity recurrent matrix), or a shorter "
                "sequence; check that the layer's output reaches the loss at all."
            ),
            evidence={"norm": float(norm), "largest": float(largest), "steps": self._patience},
        )
