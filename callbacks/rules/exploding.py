"""Gradients that grow out of proportion."""

from collections.abc import Iterator

import numpy as np

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._remedies import bounded_activations, recurrent_matrix, slower
from gradkeeper.callbacks.rules._text import times
from gradkeeper.callbacks.rules._usual import FirstLevel, UsualNorm
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window

# Between the inputs of the first layer and those of a later one, in an untrained network.
_GROWS_FORWARD = 1e4


class ExplodingGradient(Rule):
    """A global norm far above what this run is used to, or a network that explodes at its start.

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
        if not ratio > 1 or not beyond >= 1 or not absolute > 0 or not 1 <= warmup <= memory:
            raise ValueError(
                "ExplodingGradient needs ratio > 1, beyond >= 1, absolute > 0 and "
                f"1 <= warmup <= memory. Received: ratio={ratio}, beyond={beyond}, "
                f"absolute={absolute}, memory={memory}, warmup={warmup}"
            )
        self._ratio = ratio
        self._beyond = beyond
        self._absolute = absolute
        self._usual = UsualNorm(memory=memory, warmup=warmup)
        self._first_norms, self._first_losses = FirstLevel(warmup), FirstLevel(warmup)
        self._first = FirstStep()

    def reset(self) -> None:
        self._usual.reset()
        self._first_norms.reset()
        self._first_losses.reset()
        self._first = FirstStep()

    def check(self, window: Window) -> Iterator[Finding]:
        first = self._first.follow(window)
        rows, sudden, grown, usual = self._judge(window.global_norm, window.scalar("loss"))
        explodes = sudden | grown
        if first is not None and self._grows_forward():
            explodes |= rows == first
        for at in np.flatnonzero(explodes).tolist():
            before = float(usual[at]) if np.isfinite(usual[at]) else None
            yield self._finding(window, int(rows[at]), before, is_sudden=bool(sudden[at]))

    def judge(
        self, norms: np.ndarray, losses: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Goes on with these global norms, [steps].

        Args:
            norms: the global norms, [steps].
            losses: the losses of the same steps, [steps]; NaN, or None for all, if unknown.

        Returns:
            The rows with a finite norm, and for each of them whether it is an explosion and the
            norm that it was compared with: the running median before it, or in the warm-up the
            median of the norms so far. NaN for the first one.
        """
        rows, sudden, grown, compared = self._judge(norms, losses)
        return rows, sudden | grown, compared

    def _judge(
        self, norms: np.ndarray, losses: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Like `judge`, with jumps above the running median apart from growth since the start.

        Returns:
            The rows with a finite norm; for each whether it jumped and whether it has grown; and
            the norm that it was compared with.
        """
        rows = np.flatnonzero(np.isfinite(norms))
        finite = norms[rows]
        losses = np.full(len(rows), np.nan) if losses is None else losses[rows]
        usual = self._usual.follow(finite)
        first_norm = self._first_norms.follow(finite)
        first_loss = self._first_losses.follow(losses)
        sudden = (finite > self._ratio * usual.median) & (finite > self._beyond * usual.peak)
        has_risen = losses - first_loss >= (self._beyond - 1) * np.abs(first_loss)
        is_unknown, in_warmup = np.isnan(losses) | np.isnan(first_loss), np.isnan(usual.median)
        has_risen |= is_unknown & in_warmup
        grown = (finite > self._absolute) & (finite > self._ratio * first_norm) & has_risen
        compared = np.where(sudden, usual.median, first_norm)
        return rows, sudden, grown, compared

    def _grows_forward(self) -> bool:
        return self._first.norm > self._absolute and self._first.growth > _GROWS_FORWARD

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
            return held + bounded
        if usual is None:
            return (
                f"{held}Use smaller initial weights (he_normal, glorot_uniform) or a normalization "
                f"between the layers. {recurrent_matrix(facts, layer)}"
            ).rstrip()
        if is_sudden:
            clip = held or f"Clip (global_clipnorm={usual:.2g}, the usual norm). "
            remedy = (
                f"{clip}Look at this step's batch for values out of scale. If it happens often, "
                "lower the learning rate."
            )
        else:
            remedy = held + (self._first.advice() or slower(facts, usual))
        return f"{remedy} {recurrent_matrix(facts, layer)}".rstrip()
