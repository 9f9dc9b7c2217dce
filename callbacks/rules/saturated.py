"""Rule for layers whose activation is saturated."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import listed, span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._activations import (
    FirstValues,
    has_activation,
    is_hidden,
    layer_of_call,
)
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

_BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "hard_tanh")


class Saturated(Rule):
    """Hidden layers of which nearly all outputs are at the bounds of their activation.

    The derivative of a saturated tanh or sigmoid is near zero, so that the layer and the layers
    before it hardly train: Glorot, Bengio: "Understanding the difficulty of training deep
    feedforward neural networks", 2010. `Activations` defines when an output is saturated.

    The rule requires `measurements=["activations"]`. It reads hidden layers with the activation
    tanh, sigmoid, hard_tanh or hard_sigmoid. It ignores the layers that compute the outputs of the
    model, because the probabilities of a confident classifier are near 0 and 1. Layers that are
    found at the same step are reported in one finding.

    Args:
        share: share of the elements of an output above which the layer is saturated.
        patience: number of consecutive measured steps with such a share.
    """

    name = "saturated"

    def __init__(self, *, share: float = 0.8, patience: int = 50) -> None:
        self._share = number("share", share, "(0, 1)")
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._first_shares = FirstValues()
        self._streaks = Streaks()

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        calls, shares = window.activations.names, window.activations.value("saturated")
        first_shares = self._first_shares.follow(calls, shares)
        holds = (shares > self._share) & has_activation(window, _BOUNDED) & is_hidden(window)
        lengths, starts = self._streaks.follow(calls, window.steps, holds, ~np.isnan(shares))
        reached = holds & (lengths == self._patience)
        for row in np.flatnonzero(reached.any(axis=1)).tolist():
            columns = np.flatnonzero(reached[row]).tolist()
            first, last = int(starts[row, columns].min()), int(window.steps[row])
            share = {calls[column]: float(shares[row, column]) for column in columns}
            from_start = bool(first_shares[row, columns[0]] > self._share)
            layer = layer_of_call(calls[columns[0]])
            yield self._finding(
                first,
                layer=layer,
                message=(
                    f"For {with_count(self._patience, 'measured step')} ({span(first, last)}) more "
                    f"than {self._share:.0%} of the outputs of {listed(list(share))} have been "
                    f"saturated ({share[calls[columns[0]]]:.1%} of {layer} in step {last}): the "
                    "gradient is near zero there."
                ),
                advice=self._first.inputs_or(_advice(window.facts, layer, from_start)),
                shares=share,
                layers=list(dict.fromkeys(map(layer_of_call, share))),
                steps=self._patience,
                last_step=last,
            )


def _advice(facts: RunFacts, layer: str, from_start: bool) -> str:
    is_recurrent = facts.recurrent_layer(layer) is not None
    if not from_start:
        other = f" If that is not enough, use GELU in place of {facts.activations.get(layer)}."
        return (
            "Divide the learning rate by 10, and repeat this if the outputs still saturate."
            f"{'' if is_recurrent else other}"
        )
    if is_recurrent:
        return (
            "Use smaller initial weights (kernel_initializer='glorot_uniform', "
            "recurrent_initializer='orthogonal')."
        )
    return (
        "Use smaller initial weights (glorot_uniform), or LayerNormalization before the activation."
    )
