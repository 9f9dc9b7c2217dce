"""Rule for gradients that the train step clips before it calls the optimizer."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import listed, span
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window, layer_of

# Relative rounding error of a clipped norm in float32.
_SAME = 1e-5
# Smaller relative differences can also occur in a gradient that is constant without clipping.
_VARIES = 1e-3


class ClippedByHand(Rule):
    """Gradients that the train step clips before it calls the optimizer.

    Clipping by norm returns the smaller of the norm and the limit. The largest norm is then the
    limit, and many steps have this norm within rounding. The rule checks the global norm (of
    each replica under a strategy), then the norm of each variable. A constant gradient is not a
    finding: while the global norm is constant, the norm of a variable must vary, and while the
    norm of a variable is constant, its largest magnitude must vary.

    Args:
        share: smallest fraction of the steps of a block that have its largest norm, 0 to 1.
        least: number of measured steps in a block.
    """

    name = "clipped_by_hand"

    def __init__(self, *, share: float = 0.5, least: int = 50) -> None:
        self._share = number("share", share, "(0, 1]")
        self._least = integer("least", least, minimum=2)
        self.reset()

    def reset(self) -> None:
        self._block: list[Window] = []
        self._was_clipped = False

    def check(self, window: Window) -> Iterator[Finding]:
        window = window[np.flatnonzero(np.isfinite(window.global_norm) & (window.global_norm > 0))]
        if self._block and self._block[0].variables != window.variables:
            self._block = []
        while len(window):
            missing = self._least - sum(map(len, self._block))
            self._block.append(window[:missing])
            window = window[missing:]
            if sum(map(len, self._block)) == self._least:
                block = Window.concatenate(self._block)
                self._block = []
                finding = self._judge(block)
                if finding is not None and not self._was_clipped:
                    yield finding
                self._was_clipped = finding is not None

    def _judge(self, block: Window) -> Finding | None:
        norms = np.concatenate([block.global_norm[:, None], block.replica_global_norms], axis=1)
        for column in norms.T:
            held = self._held(column)
            if held.any() and _vary(block.norms[held]).any():
                return self._clipped(block, held, float(column.max()), [])
        columns = [
            (column, held)
            for column in range(len(block.variables))
            if (held := self._held(block.norms[:, column])).any()
            and _vary(block.max_abs[held, column : column + 1]).all()
        ]
        if not columns:
            return None
        names = [block.variables[column] for column, _ in columns]
        number, held = columns[0]
        return self._clipped(block, held, float(block.norms[held, number].max()), names)

    def _held(self, norms: np.ndarray) -> np.ndarray:
        """Return the rows that have the largest norm, bool [rows]; all False if too few have it."""
        if not np.isfinite(norms).all() or not norms.max() > 0:
            return np.zeros(len(norms), bool)
        held = norms >= norms.max() * (1 - _SAME)
        return held & (held.mean() >= self._share)

    def _clipped(self, block: Window, held: np.ndarray, limit: float, names: list[str]) -> Finding:
        steps = block.steps[held]
        argument = "clipnorm" if names else "global_clipnorm"
        what = f"gradient norm of {listed(names)}" if names else "global gradient norm"
        return self._finding(
            steps[0],
            layer=layer_of(names[0]) if names else "",
            severity="info",
            message=(
                f"In {len(steps)} of {len(block)} measured steps "
                f"({span(block.steps[0], block.steps[-1])}) the {what} is {limit:.4g} within "
                "rounding: the train step clips the gradients before it calls the optimizer. The "
                "recorded norms are the norms after this clipping."
            ),
            advice=(
                f"To record the norms before clipping, remove the clipping from the train step and "
                f"set the limit on the optimizer ({argument}={limit:.4g}), which clips in the same "
                "way."
            ),
            limit=limit,
            share=float(held.mean()),
            variables=names,
            last_step=int(steps[-1]),
        )


def _vary(values: np.ndarray) -> np.ndarray:
    """Return the columns whose finite values vary by more than rounding, bool [columns]."""
    known = np.isfinite(values)
    largest = np.max(values, axis=0, initial=0.0, where=known)
    least = np.min(values, axis=0, initial=np.inf, where=known)
    return np.isfinite(least) & (largest - least > _VARIES * largest)
