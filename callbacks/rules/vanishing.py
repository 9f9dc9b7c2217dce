"""Rule for layers with a negligible gradient."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import span
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window


class VanishingGradient(Rule):
    """Layers whose gradient norm is negligible compared with the largest layer norm.

    `DeadGradient` covers layers whose gradient is exactly zero in all of these steps.

    Args:
        ratio: ratio of a layer norm to the largest layer norm below which it is negligible.
        patience: number of consecutive measured steps with a negligible norm.
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
        self._streaks = Streaks()
        self._zeros = Streaks()

    def reset(self) -> None:
        self._streaks.clear()
        self._zeros.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        norms = window.layer_norms
        largest = np.max(norms, axis=1, initial=0.0, where=np.isfinite(norms))
        negligible = norms < self._ratio * largest[:, None]
        counted = np.isfinite(norms)
        names, steps = window.layers, window.steps
        lengths, starts = self._streaks.follow(names, steps, negligible, counted)
        zeros, _ = self._zeros.follow(names, steps, norms == 0, counted)
        reached = counted & (lengths == self._patience) & (zeros < self._patience)
        for row, layer in np.argwhere(reached):
            yield self._finding(
                window.layers[layer],
                (int(starts[row, layer]), int(window.steps[row])),
                float(norms[row, layer]),
                float(largest[row]),
                window.facts,
            )

    def _finding(
        self, layer: str, steps: tuple[int, int], norm: float, largest: float, facts: RunFacts
    ) -> Finding:
        return Finding(
            step=steps[0],
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"For {self._patience} measured steps ({span(*steps)}) the gradient of {layer} "
                f"has been below {self._ratio:g} of the largest layer's ({norm:.3g} against "
                f"{largest:.3g})."
            ),
            advice=f"{_remedy(facts)}. Check that the loss depends on the layer's output.",
            evidence={
                "norm": norm,
                "largest": largest,
                "steps": self._patience,
                "last_step": steps[1],
            },
        )


def _remedy(facts: RunFacts) -> str:
    if facts.layer_types and not facts.recurrent:
        return (
            "Use ReLU or GELU with he_normal initialization in place of sigmoid or tanh, residual "
            "connections, or normalization layers"
        )
    if facts.recurrent and all(each.is_gated for each in facts.recurrent):
        return (
            "Use a shorter sequence, attention over the time steps, or residual connections and "
            "LayerNormalization between the layers. Also mask the padding (mask_zero=True)"
        )
    return (
        "Use gated cells, residual connections or LayerNormalization, an activation that does not "
        "saturate (ReLU with an identity recurrent matrix), or a shorter sequence"
    )
