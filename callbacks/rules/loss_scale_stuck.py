"""Rule for dynamic loss scaling that skips too many steps."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Recent, Streaks
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
        if patience < 1 or not 0 < share < 1 or memory < 1:
            raise ValueError(
                "LossScaleStuck needs patience >= 1, 0 < share < 1 and memory >= 1. "
                f"Received: patience={patience}, share={share}, memory={memory}"
            )
        self._patience = patience
        self._share = share
        self._streak = Streaks()
        self._memory = memory
        self._skipped = Recent(memory)
        self._was_stuck = False

    def reset(self) -> None:
        self._streak.clear()
        self._skipped.clear()
        self._was_stuck = False

    def check(self, window: Window) -> Iterator[Finding]:
        rows = np.flatnonzero(np.isfinite(window.scalar("loss_scale")))
        skipped, steps = window.skipped[rows], window.steps[rows]
        scale = window.scalar("loss_scale")[rows]
        lengths, began = self._streak.follow([""], steps, skipped[:, None])
        # The share is NaN, and exceeds no threshold, until `memory` steps were read.
        share = self._skipped.through(skipped.astype(float)).sum(axis=1) / self._memory
        for row in range(len(rows)):
            in_a_row, at_bottom = int(lengths[row, 0]), scale[row] <= _LOWEST and skipped[row]
            is_stuck = bool(in_a_row >= self._patience or at_bottom or share[row] > self._share)
            if is_stuck and not self._was_stuck:
                first = int(began[row, 0]) if in_a_row else int(steps[row])
                numbers = in_a_row, float(scale[row]), float(share[row])
                yield self._finding(first, int(steps[row]), numbers)
            self._was_stuck = is_stuck

    def _finding(self, first: int, last: int, numbers: tuple[int, float, float]) -> Finding:
        in_a_row, scale, share = numbers
        how = (
            f"{share:.0%} of the last {self._memory} measured steps"
            if share > self._share
            else f"{in_a_row} measured step{'s' if in_a_row > 1 else ''} in a row"
        )
        return Finding(
            step=first,
            layer="",
            rule=self.name,
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
            evidence={
                "skipped_in_a_row": in_a_row,
                "loss_scale": scale,
                "share": share if np.isfinite(share) else None,
                "last_step": last,
            },
        )
