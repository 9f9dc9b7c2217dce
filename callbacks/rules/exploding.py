"""Rule for exploding gradients."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks._text import times
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import finite_or_none
from gradkeeper.callbacks.rules.advice import (
    FirstStep,
    bounded_activations,
    clipped_to,
    largest_layer,
    recurrent_matrix,
    slower,
)
from gradkeeper.callbacks.rules.healthy_steps import Explosions, HealthyNorms
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

# Smallest growth from the inputs of the first layer to those of a later layer that is a fault in
# an untrained network.
_GROWS_FORWARD = 1e4


class ExplodingGradient(Rule):
    """A global norm far above its usual value, or large growth in the first step.

    A large norm alone is not an explosion: summed losses and unscaled data have norms of 1e4 to
    1e12 in healthy runs. A step explodes in one of three cases:

    - The norm exceeds `ratio` times its running median and `beyond` times its highest level.
    - The norm exceeds `absolute` and `ratio` times the median of the first `warmup` norms, and the
      loss has risen to `beyond` times its median over the same steps. Where the loss is unknown,
      the norm must grow that far within the first `warmup` steps.
    - In the first step, the norm exceeds `absolute`, and the inputs of a layer are 10,000 times as
      large as those of the first layer, estimated from the gradients of kernels and biases.

    Args:
        ratio: ratio of the global norm to its running median or to the median of the first norms.
            Independent of the scale of the model and its loss.
        beyond: ratio of the global norm to its highest level, the largest median over ten steps,
            and of the loss to its first level. Norms that a converged run reached before are not
            explosions.
        absolute: global norm above which the norm is compared with the first norms of the run.
        memory: number of steps in the running median.
        warmup: number of steps before the running median is used.

    Attributes:
        explosions: explosion detector with the thresholds of the rule.
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
        self.explosions = Explosions(
            ratio=ratio, beyond=beyond, absolute=absolute, memory=memory, warmup=warmup
        )
        self.reset()

    def reset(self) -> None:
        self._healthy = HealthyNorms(self.explosions)
        self._first = FirstStep()

    def check(self, window: Window) -> Iterator[Finding]:
        first = self._first.follow(window)
        judged = self._healthy.follow(window)
        explodes = judged.explodes
        grows_forward = self._first.growth > _GROWS_FORWARD
        if first is not None and self._first.norm > self.explosions.absolute and grows_forward:
            explodes = explodes | (judged.rows == first)
        for at in np.flatnonzero(explodes).tolist():
            row, usual = int(judged.rows[at]), finite_or_none(judged.usual[at])
            norm = float(window.global_norm[row])
            layer, layer_norm = largest_layer(window, row)
            # The first norms of a run may be diverging already.
            is_sudden = bool(judged.sudden[at])
            reference = "the usual norm of" if is_sudden else "the median of the first norms,"
            compared = (
                f", {times(norm / usual)} {reference} {usual:.3g}"
                if usual
                else f" {self._forward()}"
            )
            yield self._finding(
                window.steps[row],
                layer=layer,
                message=(
                    f"The gradient norm is {norm:.3g}{compared}; the largest layer norm is that "
                    f"of {layer} ({layer_norm:.3g})."
                ),
                advice=self._advice(window, row, layer, usual, is_sudden=is_sudden),
                norm=norm,
                usual=usual,
                layer_norm=layer_norm,
                clipped=bool(window.clipped[row]),
            )

    def _forward(self) -> str:
        """Return the growth of the layer inputs in the first step as text."""
        sizes = self._first.sizes
        begin, end = next(iter(sizes)), max(sizes, key=lambda layer: sizes[layer])
        return (
            f"in the first step, where the inputs of {begin} have a root mean square of about "
            f"{sizes[begin]:.2g} and those of {end} of about {sizes[end]:.2g}"
        )

    def _advice(
        self, window: Window, row: int, layer: str, usual: float | None, *, is_sudden: bool
    ) -> str:
        facts = window.facts
        held = clipped_to(window, row)
        held += " " * bool(held)
        bounded = bounded_activations(facts, layer) or bounded_activations(facts)
        if bounded:
            return f"{held}{self._first.input_advice()} {bounded}".strip()
        if usual is None:
            return (
                f"{held}Use smaller initial weights (he_normal, glorot_uniform) or a normalization "
                f"layer between the layers. {recurrent_matrix(facts, layer)}"
            ).rstrip()
        limit = self._healthy.limit()
        if is_sudden:
            clip = held or (f"Clip ({limit}). " if limit else "")
            remedy = (
                f"{clip}Check this step's batch for values out of scale. If such steps are "
                "frequent, lower the learning rate."
            )
        else:
            remedy = held + (self._first.advice(facts) or slower(facts, limit))
        return f"{remedy} {recurrent_matrix(facts, layer)}".rstrip()
