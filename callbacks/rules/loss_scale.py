"""Rules for the loss scale under mixed precision."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Recent, Streaks, finite_or_none
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

_LOWEST = 1.0


class LossScaleStuck(Rule):
    """Dynamic loss scaling that skips so many steps that the model hardly trains.

    Dynamic loss scaling skips a few steps in a healthy run. The rule reports `patience` skipped
    steps in a row, more than `share` of the last `memory` steps, and a skipped step at a scale
    of 1 or less, where a smaller scale cannot prevent an overflow of float16.

    Args:
        patience: number of consecutive measured steps that are skipped.
        share: fraction of the last `memory` measured steps that are skipped, 0 to 1.
        memory: number of measured steps over which the fraction is taken.
    """

    name = "loss_scale_stuck"
    active_during_warmup = True

    def __init__(self, *, patience: int = 10, share: float = 0.5, memory: int = 50) -> None:
        self._patience = integer("patience", patience)
        self._share = number("share", share, "(0, 1)")
        self._memory = integer("memory", memory)
        self.reset()

    def reset(self) -> None:
        self._streak = Streaks()
        self._skipped = Recent(self._memory)
        self._was_stuck = False

    def check(self, window: Window) -> Iterator[Finding]:
        rows = np.flatnonzero(np.isfinite(window.scalar("loss_scale")))
        skipped, steps = window.skipped[rows], window.steps[rows]
        scale = window.scalar("loss_scale")[rows].tolist()
        lengths, began = self._streak.follow([""], steps, skipped[:, None])
        # The share is NaN, and exceeds no threshold, until `memory` steps were read.
        counts = self._skipped.through(skipped.astype(float)).sum(axis=1)
        share = (counts / self._memory).tolist()
        for row in range(len(rows)):
            in_a_row, at_bottom = int(lengths[row, 0]), scale[row] <= _LOWEST and skipped[row]
            is_stuck = bool(in_a_row >= self._patience or at_bottom or share[row] > self._share)
            if is_stuck and not self._was_stuck:
                first = began[row, 0] if in_a_row else steps[row]
                yield self._stuck(first, int(steps[row]), in_a_row, scale[row], share[row])
            self._was_stuck = is_stuck

    def _stuck(self, first: int, last: int, in_a_row: int, scale: float, share: float) -> Finding:
        how = (
            f"{share:.0%} of the last {self._memory} measured steps"
            if share > self._share
            else f"{in_a_row} measured step{'s' if in_a_row > 1 else ''} in a row"
        )
        return self._finding(
            first,
            severity="error",
            message=(
                f"Loss scaling has skipped {how} up to step {last}; the loss scale is {scale:g}."
            ),
            advice=(
                "The gradient may be NaN at any scale: train a few steps in float32. If the "
                "gradient is NaN there too, check for NaN in the data and the weights, log(0) or a "
                "division by zero. If not, keep the layer that overflows in float32, use bfloat16, "
                "or lower the learning rate."
            ),
            skipped_in_a_row=in_a_row,
            loss_scale=scale,
            share=finite_or_none(share),
            last_step=last,
        )


class LossNotScaled(Rule):
    """A custom train step that does not call `scale_loss` of its `LossScaleOptimizer`.

    With the dtype policy `mixed_float16`, `compile()` wraps the optimizer in a
    `LossScaleOptimizer`, which divides every gradient by the loss scale, initially 32,768. The
    default `train_step` multiplies the loss by the same scale. A custom `train_step` must call
    `scale_loss`.
    """

    name = "loss_not_scaled"
    active_during_warmup = True
    _is_reported = False

    def reset(self) -> None:
        self._is_reported = False

    def check(self, window: Window) -> Iterator[Finding]:
        scales = window.scalar("missing_loss_scale")
        rows = np.flatnonzero(np.isfinite(scales))
        if self._is_reported or not len(rows):
            return
        self._is_reported = True
        scale = float(scales[rows[0]])
        yield self._finding(
            window.steps[rows[0]],
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
            loss_scale=scale,
        )
