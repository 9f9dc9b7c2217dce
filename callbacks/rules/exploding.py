"""Gradients that grow out of proportion."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._explosions import Explosions
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._healthy import HealthyNorms
from gradkeeper.callbacks.rules._remedies import bounded_activations, recurrent_matrix, slower
from gradkeeper.callbacks.rules._text import times
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

# Between the inputs of the first layer and those of a later one, in an untrained network.
_GROWS_FORWARD = 1e4


class ExplodingGradient(Rule):
    """A global norm far above the run's usual norm, or a network that explodes at its start.

    A large norm alone is not an explosion: summed losses and unscaled data have norms of 1e4 to
    1e12 in healthy runs. Besides `ratio` and `beyond`, a norm above `absolute` is a finding where
    it is `ratio` times the median of the run's first `warmup` norms and the loss has risen to
    `beyond` times its median over the same steps. Where the loss is not known, the norm must grow
    that far within the first `warmup` steps. In the first step a norm above `absolute` is a finding
    where the values inside the network grow 10,000-fold between two layers, as the norms of the
    layers' kernels and biases show.

    Args:
        ratio: how many times the running median of the global norm is an explosion. Does not
            depend on the scale of the model or its loss.
        beyond: how many times the run's highest level (largest median over ten steps) the norm
            must be as well: a run that has converged comes back to old norms, which is none.
        absolute: a global norm that is large, so that it is compared with the run's first norms.
        memory: steps that the running median looks back on.
        warmup: steps that must have been seen before the running median is asked.
    """

    name = "exploding"

    def __init__(
        self,
        *,
        ratio: float = 100.0,
        beyond: float = 10.0,
        absolute: float = 1e4,
        memory: int = 100,
        warmup: int = 10,
    ) -> None:
        self._explosions = Explosions(
            ratio=ratio, beyond=beyond, absolute=absolute, memory=memory, warmup=warmup
        )
        self.reset()

    @property
    def explosions(self) -> Explosions:
        """The thresholds of an explosion."""
        return self._explosions

    def reset(self) -> None:
        self._healthy = HealthyNorms(self._explosions)
        self._first = FirstStep()

    def check(self, window: Window) -> Iterator[Finding]:
        first = self._first.follow(window)
        judged = self._healthy.follow(window)
        explodes = judged.explodes
        if first is not None and self._grows_forward():
            explodes |= judged.rows == first
        for at in np.flatnonzero(explodes).tolist():
            before = float(judged.usual[at]) if np.isfinite(judged.usual[at]) else None
            row, is_sudden = int(judged.rows[at]), bool(judged.sudden[at])
            yield self._finding(window, row, before, is_sudden=is_sudden)

    def _grows_forward(self) -> bool:
        return self._first.norm > self._explosions.absolute and self._first.growth > _GROWS_FORWARD

    def _finding(
        self, window: Window, row: int, usual: float | None, *, is_sudden: bool
    ) -> Finding:
        norm = float(window.global_norm[row])
        share = np.where(np.isfinite(window.layer_norms[row]), window.layer_norms[row], 0.0)
        largest = int(np.argmax(share))
        layer = window.layers[largest]
        compared = (
            f", {times(norm / usual)} the usual {usual:.3g}" if usual else f" {self._forward()}"
        )
        return Finding(
            step=int(window.steps[row]),
            layer=layer,
            rule=self.name,
            severity="warning",
            message=(
                f"The gradient norm is {norm:.3g}{compared}; most of it is in {layer} "
                f"({share[largest]:.3g})."
            ),
            advice=self._advice(window, row, layer, usual, is_sudden=is_sudden),
            evidence={
                "norm": norm,
                "usual": usual,
                "layer_norm": float(share[largest]),
                "clipped": bool(window.clipped[row]),
            },
        )

    def _forward(self) -> str:
        """How the values inside the network grow in the first step."""
        sizes = self._first.sizes
        begin, end = next(iter(sizes)), max(sizes, key=lambda layer: sizes[layer])
        return (
            f"in the first step, where the inputs of {begin} have a size of about "
            f"{sizes[begin]:.2g} and those of {end} of about {sizes[end]:.2g}"
        )

    def _advice(
        self, window: Window, row: int, layer: str, usual: float | None, *, is_sudden: bool
    ) -> str:
        facts = window.facts
        held = (
            f"Clipping held what was applied to {window.applied_global_norm[row]:.3g}. "
            if window.clipped[row]
            else ""
        )
        bounded = bounded_activations(facts, layer) or bounded_activations(facts)
        if bounded:
            return f"{held}{self._first.input_advice()} {bounded}".strip()
        if usual is None:
            return (
                f"{held}Use smaller initial weights (he_normal, glorot_uniform) or a normalization "
                f"between the layers. {recurrent_matrix(facts, layer)}"
            ).rstrip()
        limit = self._healthy.limit()
        if is_sudden:
            clip = held or (f"Clip ({limit}). " if limit else "")
            remedy = (
                f"{clip}Look at this step's batch for values out of scale. If it happens often, "
                "lower the learning rate."
            )
        else:
            remedy = held + (self._first.advice() or slower(facts, limit))
        return f"{remedy} {recurrent_matrix(facts, layer)}".rstrip()
