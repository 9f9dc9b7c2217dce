"""Rule for updates that are too large or too small for the weights."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import UsualNorm
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, total_norm

_STARVED = 1e-3
_CONVERGED = 1e-4


class UpdateRatio(Rule):
    """Layers whose updates are too large or too small for their weights.

    The ratio is the norm of the update divided by the norm of the weights, over all variables of
    a layer; about 1e-3 is usual. The rule reports a layer if the median ratio of the last
    updates and the last ratio are outside the bounds. It reports the whole model after a single
    update whose norm exceeds twice the norm of all weights: such an update replaces the weights,
    and the ratios of later updates look normal. The first update of a healthy linear model can be
    as large as its weights; those of a learning rate that is too high are four times as large.

    The rule requires update norms and weight norms (`watch`). It ignores:

    - layers whose weights or gradient are zero;
    - small updates of a layer whose gradient is below 1e-3 of the largest layer's, which
      `VanishingGradient` covers;
    - small updates while the gradient of the model is below 1e-4 of its highest level, because
      the model has converged;
    - large updates of a model whose weights are all zero at the start.

    Args:
        low: ratio below which a layer hardly changes.
        high: ratio above which a layer is overwritten.
        patience: number of measured updates in the median ratio.
        overwritten: ratio for the whole model above which a single update is too large.
    """

    name = "update_ratio"

    def __init__(
        self,
        *,
        low: float = 1e-8,
        high: float = 0.1,
        patience: int = 20,
        overwritten: float = 2.0,
    ) -> None:
        self._low = number("low", low)
        self._high = number("high", high, f"({self._low}, inf]")
        self._patience = integer("patience", patience)
        self._overwritten = number("overwritten", overwritten, "(0, inf]")
        self.reset()

    def reset(self) -> None:
        self._usual = UsualNorm(memory=10, warmup=10)
        self._began_at_zero: bool | None = None
        self._layers: list[str] = []
        self._steps = np.zeros(0, np.int64)
        self._ratios = np.zeros((0, 0))
        self._was_outside = np.zeros(0, bool)

    def check(self, window: Window) -> Iterator[Finding]:
        if "update_norm" not in window.values or "weight_norm" not in window.values:
            return
        layer_ratios = self._layer_ratios(window, self._converged(window.global_norm))
        rows = np.flatnonzero(window.updated.any(axis=1))
        if not len(rows):
            return
        overwritten = self._overwrites(window, rows)
        self._take_over(window.layers)
        ratios = np.concatenate([self._ratios, layer_ratios[rows]])
        steps = np.concatenate([self._steps, window.steps[rows]])
        outside = self._outside(ratios)[-len(rows) :]
        before = np.concatenate([self._was_outside[None], outside[:-1]])
        new = outside & ~before
        for row in np.flatnonzero(np.isfinite(overwritten) | new.any(axis=1)).tolist():
            if np.isfinite(overwritten[row]):
                step, ratio = int(window.steps[rows[row]]), float(overwritten[row])
                yield self._finding(
                    step,
                    message=(
                        f"The update of step {step} has {ratio:.2g} times the norm of all the "
                        "weights that it changes: the update replaces the weights."
                    ),
                    advice=_too_high(window.facts),
                    ratio=ratio,
                    bound=self._overwritten,
                    last_step=step,
                )
            end = len(ratios) - len(rows) + row + 1
            last = slice(end - self._patience, end)
            for column in np.flatnonzero(new[row]):
                layer = window.layers[column]
                yield self._outlier(layer, steps[last], ratios[last, column], window.facts)
        keep = max(len(ratios) - self._patience + 1, 0)
        self._steps, self._ratios = steps[keep:], ratios[keep:]
        self._was_outside = outside[-1]

    def _converged(self, norms: np.ndarray) -> np.ndarray:
        """Return the steps in which the model has converged, bool [steps]."""
        converged, rows = np.zeros(len(norms), bool), np.flatnonzero(np.isfinite(norms))
        _, peak = self._usual.follow(norms[rows])
        converged[rows] = norms[rows] < _CONVERGED * peak
        return converged

    def _overwrites(self, window: Window, rows: np.ndarray) -> np.ndarray:
        """Return the update ratio of the model where it is too large, [rows]; else NaN."""
        update, weight = window.value("update_norm")[rows], window.value("weight_norm")[rows]
        there = window.updated[rows]
        moved, before = total_norm(update, there), total_norm(weight, there)
        if self._began_at_zero is None:
            self._began_at_zero = bool(before[0] == 0)
        too_large = np.isfinite(moved) & (moved > self._overwritten * before) & (before > 0)
        too_large &= not self._began_at_zero
        return np.divide(moved, before, out=np.full(len(rows), np.nan), where=too_large)

    def _layer_ratios(self, window: Window, converged: np.ndarray) -> np.ndarray:
        """Return the update ratio of each layer, [steps, layers]; NaN where it is ignored."""
        update, weight = window.value("update_norm"), window.value("weight_norm")
        there = window.updated & np.isfinite(update) & np.isfinite(weight)
        updates, weights = window.by_layer(update, there), window.by_layer(weight, there)
        norms = window.layer_norms
        largest = np.max(norms, axis=1, initial=0.0, where=np.isfinite(norms))
        is_starved = norms < _STARVED * largest[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where((weights > 0) & (norms > 0), updates / weights, np.nan)
        is_idle = is_starved | converged[:, None]
        return np.where(is_idle & (ratios < self._low), np.nan, ratios)

    def _outside(self, ratios: np.ndarray) -> np.ndarray:
        """Return where the median and the last ratio are outside the bounds, [steps, layers].

        The median exceeds a bound where more than half of the values exceed it.
        """
        judged = self._over_last(np.isfinite(ratios))
        outside = np.zeros(ratios.shape, bool)
        for beyond in (ratios > self._high, ratios < self._low):
            outside |= beyond & (2 * self._over_last(beyond) > judged)
        outside &= 2 * judged >= self._patience
        outside[: self._patience - 1] = False
        return outside

    def _over_last(self, flags: np.ndarray) -> np.ndarray:
        """Return the number of flags in the last `patience` rows, int [steps, layers]."""
        total = np.cumsum(flags, axis=0)
        total[self._patience :] -= total[: -self._patience].copy()
        return total

    def _take_over(self, layers: list[str]) -> None:
        """Rearrange the stored state into the columns of these layers."""
        if layers == self._layers:
            return
        known = {layer: column for column, layer in enumerate(self._layers)}
        # The last column, which `np.pad` adds, stands for the layers without a stored state.
        columns = np.array([known.get(layer, -1) for layer in layers], np.int64)
        ratios = np.pad(self._ratios, ((0, 0), (0, 1)), constant_values=np.nan)
        self._layers, self._ratios = list(layers), ratios[:, columns]
        self._was_outside = np.append(self._was_outside, False)[columns]

    def _outlier(
        self, layer: str, steps: np.ndarray, ratios: np.ndarray, facts: RunFacts
    ) -> Finding:
        there = np.isfinite(ratios)
        median = float(np.median(ratios[there]))
        is_high = median > self._high
        outside = ratios > self._high if is_high else ratios < self._low
        bound = self._high if is_high else self._low
        return self._finding(
            steps[outside][0],
            layer=layer,
            message=(
                f"The ratio of update to weights of {layer} is {median:.2g} (median from step "
                f"{steps[0]} to {steps[-1]}), {'above' if is_high else 'below'} {bound:g}; about "
                "1e-3 is usual."
            ),
            advice=(
                _too_high(facts)
                if is_high
                else "Raise the learning rate, or find out why the layer's gradient is so small: "
                "updates below 6e-8 of a float32 weight do not change it."
            ),
            median=median,
            last=float(ratios[there][-1]),
            bound=bound,
            steps=int(there.sum()),
            last_step=int(steps[-1]),
        )


def _too_high(facts: RunFacts) -> str:
    """Return advice on large updates; clipping does not shorten steps of adaptive optimizers."""
    if facts.is_adaptive:
        return "Lower the learning rate, or use a warm-up."
    return "Lower the learning rate, use a warm-up, or clip the gradient."
