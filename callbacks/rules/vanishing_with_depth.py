"""Rule for gradients that shrink from layer to layer towards the input."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import span
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, layer_of

_MATRIX_WORDS = ("kernel", "weight")


class VanishingWithDepth(Rule):
    """Gradient norms that fall steadily from the last layers to the first.

    The rule reads the layers that have a weight matrix, in the order of the model. In each step
    it computes the ratio of the geometric mean norm of the first quarter of these layers to that
    of the last quarter, and the correlation of the log norms with depth. Embeddings,
    normalization layers and layers with only a bias are ignored.

    Args:
        ratio: ratio of the first to the last quarter below which the gradient has vanished.
        correlation: smallest Pearson correlation of the log norms with depth, 0 to 1.
        layers: smallest number of layers with a finite gradient above zero.
        patience: number of consecutive measured steps in which all these conditions are met.
    """

    name = "vanishing_with_depth"

    def __init__(
        self,
        *,
        ratio: float = 1e-3,
        correlation: float = 0.8,
        layers: int = 4,
        patience: int = 20,
    ) -> None:
        if not 0 < ratio < 1 or not 0 <= correlation <= 1 or layers < 3 or patience < 1:
            raise ValueError(
                "VanishingWithDepth needs 0 < ratio < 1, 0 <= correlation <= 1, layers >= 3 and "
                f"patience >= 1. Received: ratio={ratio}, correlation={correlation}, "
                f"layers={layers}, patience={patience}"
            )
        self._ratio = ratio
        self._correlation = correlation
        self._layers = layers
        self._patience = patience
        self._streak = Streaks()

    def reset(self) -> None:
        self._streak.clear()

    def check(self, window: Window) -> Iterator[Finding]:
        owners = _layers_with_matrices(window)
        if len(owners) < self._layers:
            self._streak.follow([""], window.steps, np.zeros((len(window), 1), bool))
            return
        norms = window.layer_norms[:, owners]
        there = np.isfinite(norms) & (norms > 0)
        enough = there.sum(axis=1) >= self._layers
        log_ratio, slope, correlation = _trend(norms, there)
        vanishes = (log_ratio < np.log10(self._ratio)) & (correlation >= self._correlation)
        lengths, starts = self._streak.follow(
            [""],
            window.steps,
            (vanishes & enough)[:, None],
            np.isfinite(window.global_norm)[:, None],
        )
        for row in np.flatnonzero((lengths[:, 0] == self._patience) & vanishes & enough):
            layers = [window.layers[owner] for owner in owners[there[row]]]
            steps = int(starts[row, 0]), int(window.steps[row])
            trend = float(10 ** log_ratio[row]), float(10 ** -slope[row])
            yield self._finding(layers, steps, norms[row, there[row]], trend, window.facts)

    def _finding(
        self,
        layers: list[str],
        steps: tuple[int, int],
        norms: np.ndarray,
        trend: tuple[float, float],
        facts: RunFacts,
    ) -> Finding:
        ratio, factor = trend
        return Finding(
            step=steps[0],
            layer=layers[0],
            rule=self.name,
            severity="warning",
            message=(
                f"For {self._patience} measured steps ({span(*steps)}) the gradient has shrunk "
                f"towards the input, by a factor of {factor:.3g} per layer over {len(layers)} "
                f"layers: {norms[-1]:.3g} in {layers[-1]}, {norms[0]:.3g} in {layers[0]}."
            ),
            advice=_advice(layers, facts),
            evidence={
                "ratio": ratio,
                "factor_per_layer": factor,
                "layers": layers,
                "norms": [float(norm) for norm in norms],
                "last_step": steps[1],
            },
        )


def _advice(layers: list[str], facts: RunFacts) -> str:
    is_recurrent = any(facts.recurrent_layer(layer) for layer in layers)
    activation = "ReLU or GELU with he_normal initialization in place of sigmoid or tanh, "
    return (
        f"Use {'' if is_recurrent else activation}residual connections, BatchNormalization or "
        "LayerNormalization between the layers, or fewer layers."
    )


def _layers_with_matrices(window: Window) -> np.ndarray:
    """Return the indices of the layers that have a weight matrix, in the order of the model."""
    owners = {
        layer_of(variable)
        for variable in window.variables
        if any(word in variable.rpartition("/")[2] for word in _MATRIX_WORDS)
    }
    return np.array([i for i, layer in enumerate(window.layers) if layer in owners], np.int64)


def _trend(norms: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log10 of the quarters' ratio, slope per layer and correlation, [steps] each.

    Depth is the index of a layer among the layers where `there` is True.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(there, np.log10(norms), 0.0)
        place = np.where(there, np.cumsum(there, axis=1) - 1, 0)
        count = there.sum(axis=1)
        x = np.where(there, place - ((count - 1) / 2)[:, None], 0.0)
        y = np.where(there, logs - (logs.sum(axis=1) / count)[:, None], 0.0)
        slope = (x * y).sum(axis=1) / (x * x).sum(axis=1)
        correlation = slope * np.sqrt((x * x).sum(axis=1) / (y * y).sum(axis=1))
        quarter = np.maximum(count // 4, 1)
        first = there & (place < quarter[:, None])
        last = there & (place >= (count - quarter)[:, None])
        ratio = ((logs * first).sum(axis=1) - (logs * last).sum(axis=1)) / quarter
    return ratio, slope, correlation
