"""Rule for a custom train step that does not scale the loss under mixed precision."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class LossNotScaled(Rule):
    """A custom train step that does not call `scale_loss` of its `LossScaleOptimizer`.

    With the dtype policy `mixed_float16`, `compile()` wraps the optimizer in a
    `LossScaleOptimizer`, which divides every gradient by the loss scale, initially 32,768. The
    default `train_step` multiplies the loss by the same scale. A custom `train_step` must call
    `scale_loss`.
    """

    name = "loss_not_scaled"
    active_during_warmup = True

    def __init__(self) -> None:
        self._is_told = False

    def reset(self) -> None:
        self._is_told = False

    def check(self, window: Window) -> Iterator[Finding]:
        scale = window.scalar("missing_loss_scale")
        rows = np.flatnonzero(np.isfinite(scale))
        if len(rows) and not self._is_told:
            self._is_told = True
            yield self._finding(int(window.steps[rows[0]]), float(scale[rows[0]]))

    def _finding(self, step: int, scale: float) -> Finding:
        return Finding(
            step=step,
            layer="",
            rule=self.name,
            severity="error",
            message=(
                f"The LossScaleOptimizer divides every gradient by {scale:,.0f}, but the train "
                "step does not multiply the loss by this scale: it never calls scale_loss(). The "
                f"applied gradients are {scale:,.0f} times too small."
            ),
            advice=(
                "Add this line inside the GradientTape, after the loss is computed: "
                "`loss = self.optimizer.scale_loss(loss)`. Compute the gradients of the scaled "
                "loss, and log the unscaled loss."
            ),
            evidence={"loss_scale": scale},
        )
