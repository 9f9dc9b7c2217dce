"""Updates too large or too small for the weights."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

_STARVED = 1e-3


class UpdateRatio(Rule):
    """A layer whose updates are out of proportion to its weights, in most of the last steps.

    The ratio is norm of the update over norm of the weights, each over all variables of the
    layer; about 1e-3 is usual. Silent where update norms are not watched. Layers whose weights
    or gradient are zero are not judged, nor is a layer that has come back into the bounds. A
    layer that hardly moves for want of gradient, below 1e-3 of the largest layer's, is left to
    `VanishingGradient`.

    Args:
        low: ratio below which a layer hardly moves.
        high: ratio above which a layer is overwritten.
        patience: measured updates over which the median ratio must lie outside.
    """

    name = "update_ratio"

    def __init__(self, *, low: float = 1e-8, high: float = 0.1, patience: int = 20) -> None:
        if not 0 < low < high or patience < 1:
            raise ValueError(
                "UpdateRatio needs 0 < low < high and patience >= 1. "
                f"Received: low={low}, high={high}, patience={patience}"
            )
        self._low = low
        self._high = high
        self._patience = patience
        self._layers: list[str] = []
        self._steps = np.zeros(0, np.int64)
        self._ratios = np.zeros((0, 0))
        self._was_outside = np.zeros(0, bool)

    def reset(self) -> None:
        self._layers = []
        self._steps = np.zeros(0, np.int64)
        self._ratios = np.zeros((0, 0))
        self._was_outside = np.zeros(0, bool)

    def check(self, window: Window) -> Iterator[Finding]:
        if "update_norm" not in window.values or "weight_norm" not in window.values:
            return
        rows = np.flatnonzero(window.updated.any(axis=1))
        if not len(rows):
            return
        self._take_over(window.layers)
        ratios = np.concatenate([self._ratios, self._layer_ratios(window)[rows]])
        steps = np.concatenate([self._steps, window.steps[rows]])
        outside = self._outside(ratios)[-len(rows) :]
        before = np.concatenate([self._was_outside[None], outside[:-1]])
        for row, layer in np.argwhere(outside & ~before):
            end = len(ratios) - len(rows) + row + 1
            span = slice(end - self._patience, end)
            yield self._finding(window.layers[layer], steps[span], ratios[span, layer])
        keep = max(len(ratios) - self._patience + 1, 0)
        self._steps, self._ratios = steps[keep:], ratios[keep:]
        self._was_outside = outside[-1]

    def _layer_ratios(self, window: Window) -> np.ndarray:
        """Update over weights per layer, [steps, layers]; NaN where the layer is not judged."""
        update, weight = window.value("update_norm"), window.value("weight_norm")
        there = window.updated & np.isfinite(update) & np.isfinite(weight)
        updates, weights = window.by_layer(update, there), window.by_layer(weight, there)
        norms = window.layer_norms
        largest = np.max(norms, axis=1, initial=0.0, where=np.isfinite(norms))
        is_starved = norms < _STARVED * largest[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where((weights > 0) & (norms > 0), updates / weights, np.nan)
        return np.where(is_starved & (ratios < self._low), np.nan, ratios)

    def _outside(self, ratios: np.ndarray) -> np.ndarray:
        """Whether most ratios of the last steps, and the last one, lie outside, [steps, layers].

        The median lies above a bound where more than half of the values do.
        """
        judged = self._over_last(np.isfinite(ratios))
        outside = np.zeros(ratios.shape, bool)
        for beyond in (ratios > self._high, ratios < self._low):
            outside |= beyond & (2 * self._over_last(beyond) > judged)
        outside &= 2 * judged >= self._patience
        outside[: self._patience - 1] = False
        return outside

    def _over_last(self, flags: np.ndarray) -> np.ndarray:
        """How many of the last `patience` rows have the flag, int [steps, layers]."""
        total = np.cumsum(flags, axis=0)
        total[self._patience :] -= total[: -self._patience].copy()
        return total

    def _take_over(self, layers: list[str]) -> None:
        """Brings what is remembered into the columns of these layers."""
        if layers == self._layers:
            return
        ratios = np.full((len(self._steps), len(layers)), np.nan)
        outside = np.zeros(len(layers), bool)
        for column, layer in enumerate(layers):
            if layer in self._layers:
                known = self._layers.index(layer)
                ratios[:, column], outside[column] = (
                    self._ratios[:, known],
                    self._was_outside[known],
                )
        self._layers, self._ratios, self._was_outside = list(layers), ratios, outside

    def _finding(self, layer: str, steps: np.ndarray, ratios: np.ndarray) -> Finding:
        there = np.isfinite(ratios)
        median = float(np.median(ratios[there]))
        is_high = median > self._high
        bound = f"above {self._high:g}" if is_high else f"below {self._low:g}"
        return Finding(
            step=int(steps[there][0]),
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The updates of {layer} are {median:.2g} of its weights (median from step "
                f"{steps[0]} to {steps[-1]}), {bound}; about 1e-3 is usual."
            ),
            advice=(
                "Lower the learning rate, warm it up, or clip."
                if is_high
                else "Raise the learning rate, or look why the layer's gradient is so small; "
                "float32 weights do not change by less than 6e-8 of their size."
            ),
            evidence={
                "median": median,
                "last": float(ratios[there][-1]),
                "bound": self._high if is_high else self._low,
                "steps": int(there.sum()),
                "last_step": int(steps[-1]),
            },
        )
