"""Rules for gradients that are negligible in some layers, or shrink towards the input."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, layer_of


class VanishingGradient(Rule):
    """Layers whose gradient norm is negligible compared with the largest layer norm.

    `DeadGradient` covers layers whose gradient is exactly zero in all of these steps.

    Args:
        ratio: ratio of a layer norm to the largest layer norm below which it is negligible.
        patience: number of consecutive measured steps with a negligible norm.
    """

    name = "vanishing"

    def __init__(self, *, ratio: float = 1e-6, patience: int = 50) -> None:
        self._ratio = number("ratio", ratio, "(0, 1)")
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._streaks = Streaks()
        self._zeros = Streaks()

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        norms, layers, steps = window.layer_norms, window.layers, window.steps
        counted = np.isfinite(norms)
        largest = np.max(norms, axis=1, initial=0.0, where=counted)
        negligible = norms < self._ratio * largest[:, None]
        lengths, starts = self._streaks.follow(layers, steps, negligible, counted)
        zeros, _ = self._zeros.follow(layers, steps, norms == 0, counted)
        reached = counted & (lengths == self._patience) & (zeros < self._patience)
        for row, column in np.argwhere(reached):
            first, last, layer = starts[row, column], steps[row], layers[column]
            norm, most = float(norms[row, column]), float(largest[row])
            yield self._finding(
                first,
                layer=layer,
                message=(
                    f"For {with_count(self._patience, 'measured step')} ({span(first, last)}) the "
                    f"gradient of {layer} has been below {self._ratio:g} of the largest layer's "
                    f"({norm:.3g} against {most:.3g})."
                ),
                advice=(
                    f"{self._first.input_advice()} {_remedy(window.facts)}. Check that the loss "
                    "depends on the layer's output."
                ),
                norm=norm,
                largest=most,
                steps=self._patience,
                last_step=int(last),
            )


def _remedy(facts: RunFacts) -> str:
    if facts.layer_types and not facts.recurrent:
        return f"Use {_activation(facts)}residual connections, or normalization layers"
    if facts.recurrent and all(each.is_gated for each in facts.recurrent):
        return (
            "Use a shorter sequence, attention over the time steps, or residual connections and "
            "LayerNormalization between the layers. Also mask the padding (mask_zero=True)"
        )
    return (
        "Use gated cells, residual connections or LayerNormalization, an activation that does not "
        "saturate (ReLU with an identity recurrent matrix), or a shorter sequence"
    )


def _activation(facts: RunFacts) -> str:
    """Return advice on the activations of layers without recurrence, followed by a comma."""
    known = set(facts.activations.values())
    if known and not known & {"sigmoid", "tanh", "hard_sigmoid", "hard_tanh", "softsign"}:
        return "he_normal initialization, "
    return "ReLU or GELU with he_normal initialization in place of sigmoid or tanh, "


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
        self._ratio = number("ratio", ratio, "(0, 1)")
        self._correlation = number("correlation", correlation, "[0, 1]")
        self._layers = integer("layers", layers, minimum=3)
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._streak = Streaks()

    def check(self, window: Window) -> Iterator[Finding]:
        owners = _layers_with_matrices(window)
        if len(owners) < self._layers:
            self._streak.follow([""], window.steps, np.zeros((len(window), 1), bool))
            return
        norms = window.layer_norms[:, owners]
        there = np.isfinite(norms) & (norms > 0)
        log_ratio, slope, correlation = _trend(norms, there)
        vanishes = (log_ratio < np.log10(self._ratio)) & (correlation >= self._correlation)
        vanishes &= there.sum(axis=1) >= self._layers
        counted = np.isfinite(window.global_norm)[:, None]
        lengths, starts = self._streak.follow([""], window.steps, vanishes[:, None], counted)
        for row in np.flatnonzero((lengths[:, 0] == self._patience) & vanishes):
            layers = [window.layers[owner] for owner in owners[there[row]]]
            first, last, shrinking = starts[row, 0], window.steps[row], norms[row, there[row]]
            factor = float(10 ** -slope[row])
            yield self._finding(
                first,
                layer=layers[0],
                message=(
                    f"For {with_count(self._patience, 'measured step')} ({span(first, last)}) the "
                    f"gradient has shrunk towards the input, by a factor of {factor:.3g} per layer "
                    f"over {len(layers)} layers: {shrinking[-1]:.3g} in {layers[-1]}, "
                    f"{shrinking[0]:.3g} in {layers[0]}."
                ),
                advice=_advice(layers, window.facts),
                ratio=float(10 ** log_ratio[row]),
                factor_per_layer=factor,
                layers=layers,
                norms=shrinking.tolist(),
                last_step=int(last),
            )


def _advice(layers: list[str], facts: RunFacts) -> str:
    is_recurrent = any(facts.recurrent_layer(layer) for layer in layers)
    activation = "" if is_recurrent else _activation(facts)
    return (
        f"Use {activation}residual connections, BatchNormalization or LayerNormalization between "
        "the layers, or fewer layers."
    )


def _layers_with_matrices(window: Window) -> np.ndarray:
    """Return the indices of the layers that have a weight matrix, in the order of the model."""
    owners = {
        layer_of(variable)
        for variable in window.variables
        if any(word in variable.rpartition("/")[2] for word in ("kernel", "weight"))
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
