"""Rule for units that are zero for every input."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import number
from gradkeeper.callbacks._text import listed, span
from gradkeeper.callbacks.activations import DEAD_AFTER
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._activations import FirstValues, has_activation, layer_of_call
from gradkeeper.callbacks.rules.advice import FirstStep, bounded_activations
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window

_WITH_ZERO_GRADIENT = ("relu", "relu6", "ReLU")


class DeadUnits(Rule):
    """Layers with ReLU of which most units are zero for every input.

    A unit is dead if its output was zero for all examples of the last 50 measured steps. The
    gradient of a dead unit is zero, so that training cannot change its weights: Lu, Shin, Su,
    Karniadakis: "Dying ReLU and Initialization: Theory and Numerical Examples", 2019, arXiv
    1903.06733. A few dead units are usual in healthy networks.

    The rule requires `measurements=["activations"]`. It reads layers with the activation `relu` or
    `relu6`, and `ReLU` layers without a negative slope. Layers that are found at the same step are
    reported in one finding. Nothing is reported in a step whose gradient is not finite: ReLU of NaN
    may be zero.

    Args:
        share: share of dead units above which a layer is reported.
    """

    name = "dead_units"

    def __init__(self, *, share: float = 0.5) -> None:
        self._share = number("share", share, "(0, 1)")
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._first_zeros = FirstValues()
        self._steps: dict[str, np.ndarray] = {}
        self._began: dict[str, int] = {}
        self._reported: set[str] = set()

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        activations, calls = window.activations, window.activations.names
        zeros, dead = activations.value("zeros"), activations.value("dead_units")
        first_zeros = self._first_zeros.follow(calls, zeros)
        dead = np.where(np.isfinite(window.global_norm)[:, None], dead, np.nan)
        # `saturated` is unknown for a ReLU layer with a negative slope.
        can_die = has_activation(window, _WITH_ZERO_GRADIENT)
        can_die &= ~np.isnan(activations.value("saturated")).all(axis=0)
        steps = self._measured_steps(window, zeros)
        for row in np.flatnonzero((can_die & (dead > self._share)).any(axis=1)).tolist():
            found = {}
            for column in np.flatnonzero(can_die & (dead[row] > self._share)).tolist():
                until = steps[calls[column]]
                until = until[until <= window.steps[row]][-DEAD_AFTER:]
                if len(until) == DEAD_AFTER and calls[column] not in self._reported:
                    found[calls[column]] = float(dead[row, column])
                    first, last = int(until[0]), int(until[-1])
            if found:
                self._reported.update(found)
                column = calls.index(next(iter(found)))
                from_start = _from_start(
                    first_zeros[row, column], dead[row, column], first == self._began[calls[column]]
                )
                layer = layer_of_call(calls[column])
                advice = self._first.inputs_or(_advice(window.facts, layer, from_start))
                yield self._dead(first, last, found, advice)

    def _measured_steps(self, window: Window, zeros: np.ndarray) -> dict[str, np.ndarray]:
        """Return the last measured steps of each call, in this window and before it."""
        none = window.steps[:0]
        steps = {
            call: np.append(self._steps.get(call, none), window.steps[~np.isnan(zeros[:, column])])
            for column, call in enumerate(window.activations.names)
        }
        for call, each in steps.items():
            if len(each):
                self._began.setdefault(call, int(each[0]))
            self._steps[call] = each[-DEAD_AFTER:]
        return steps

    def _dead(self, first: int, last: int, shares: dict[str, float], advice: str) -> Finding:
        low, high = min(shares.values()), max(shares.values())
        percent = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
        return self._finding(
            first,
            layer=layer_of_call(next(iter(shares))),
            message=(
                f"{percent} of the units of {listed(list(shares))} have been zero for every "
                f"example of {DEAD_AFTER} measured steps ({span(first, last)}): their weights do "
                "not change."
            ),
            advice=advice,
            shares=shares,
            layers=list(dict.fromkeys(map(layer_of_call, shares))),
            steps=DEAD_AFTER,
            last_step=last,
        )


def _from_start(first_zeros: float, dead: float, is_first: bool) -> bool:
    """Return whether the units have been dead from the first step on.

    Args:
        first_zeros: share of zeros in the first measured step.
        dead: share of dead units.
        is_first: whether the first measured step is one of those that show the dead units.
    """
    # The other units are zero for some examples, about half of them in an untrained network.
    return bool(is_first or first_zeros > dead + (1 - dead) / 4 - 1e-6)


def _advice(facts: RunFacts, layer: str, from_start: bool) -> str:
    if bounded := bounded_activations(facts, layer):
        return bounded
    if from_start:
        return (
            "Use bias_initializer='zeros' if the biases start below zero: the units are zero from "
            "the first step on. Otherwise use LeakyReLU in place of ReLU, or BatchNormalization "
            "before it."
        )
    return "Divide the learning rate by 10, and repeat this if units still die."
