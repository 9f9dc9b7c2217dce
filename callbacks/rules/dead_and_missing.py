"""Rules for gradients that are exactly zero, or None."""

from collections.abc import Iterator
from itertools import compress

import numpy as np

from gradkeeper._arguments import integer
from gradkeeper.callbacks._text import listed, span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, layer_of


class DeadGradient(Rule):
    """Variables whose gradient is exactly zero while other variables train.

    Layers whose zero gradients begin at the same step are reported in one finding, and so are
    all layers whose zero gradients begin after an explosion. Steps are ignored if the variable
    has no gradient, or if the gradient of the whole model is zero or not finite.

    Args:
        patience: consecutive measured steps with a gradient of exactly zero.
    """

    name = "dead"

    def __init__(self, *, patience: int = 50) -> None:
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._streaks = Streaks()
        self._healthy = HealthyNorms()
        self._first = FirstStep()
        self._died_after_explosion = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        self._healthy.follow(window)
        zero = window.norms == 0
        trains = np.isfinite(window.global_norm) & (window.global_norm > 0)
        counted = window.present & trains[:, None]
        lengths, starts = self._streaks.follow(window.variables, window.steps, zero, counted)
        reached = (lengths == self._patience) & zero & counted
        for row in np.flatnonzero(reached.any(axis=1)).tolist():
            first = int(starts[row, reached[row]].min())
            end = self._healthy.end
            explosion = end if end is not None and first >= end else None
            if explosion is None or not self._died_after_explosion:
                hit = set(map(layer_of, compress(window.variables, reached[row])))
                dead = set(compress(window.variables, lengths[row] >= self._patience))
                advice = self._advice(window.facts, explosion, len(hit))
                yield self._dead(window, row, first, hit, dead, advice)
            self._died_after_explosion |= explosion is not None

    def _dead(
        self, window: Window, row: int, first: int, hit: set[str], dead: set[str], advice: str
    ) -> Finding:
        layers = [layer for layer in window.layers if layer in hit]
        of_layers = [each for each in window.variables if layer_of(each) in hit]
        names = [each for each in of_layers if each in dead]
        last, norm = int(window.steps[row]), float(window.global_norm[row])
        return self._finding(
            first,
            layer=layers[0],
            message=(
                f"For {with_count(self._patience, 'measured step')} ({span(first, last)}) the "
                f"gradient of {listed(names)} has been exactly zero ({len(names)} of "
                f"{len(of_layers)} variables of {listed(layers)}), while the global norm is "
                f"{norm:.3g}."
            ),
            advice=advice,
            variables=names,
            layers=layers,
            steps=self._patience,
            last_step=last,
            global_norm=norm,
        )

    def _advice(self, facts: RunFacts, explosion: int | None, layers: int) -> str:
        if explosion is not None:
            these = "this layer" if layers == 1 else "these layers"
            return (
                f"The gradient of step {explosion} exploded or was not finite, and the gradient of "
                f"{these} has been zero since then: follow the advice on that step first."
            )
        look = (
            "Check for ReLU units that are never active (lower the learning rate, or use LeakyReLU "
            "or GELU), gates or sigmoids saturated by large inputs, inputs or a mask with only "
            "zeros, a branch multiplied by zero, or an output detached from the loss."
        )
        return " ".join(filter(None, [self._first.advice(facts), look]))


class MissingGradient(Rule):
    """Trainable variables whose gradient is None from the first step, once per layer.

    A variable that had a gradient in an earlier step is not reported: it may be frozen later, or
    alternate with other variables.

    Args:
        patience: number of measured steps at the start of a run, each with a gradient of another
            variable, in which the gradient must be None.
    """

    name = "missing"
    active_during_warmup = True

    def __init__(self, *, patience: int = 5) -> None:
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._streaks = Streaks()
        self._seen: set[str] = set()

    def check(self, window: Window) -> Iterator[Finding]:
        seen = np.array([name in self._seen for name in window.variables], bool)
        unseen = ~(np.logical_or.accumulate(window.present, axis=0) | seen)
        counted = np.any(window.present, axis=1)[:, None]
        lengths, starts = self._streaks.follow(window.variables, window.steps, unseen, counted)
        reached = (lengths == self._patience) & unseen & counted
        for row in np.flatnonzero(reached.any(axis=1)):
            by_layer: dict[str, list[int]] = {}
            for column in np.flatnonzero(reached[row]).tolist():
                by_layer.setdefault(layer_of(window.variables[column]), []).append(column)
            for layer, columns in by_layer.items():
                names = [window.variables[column] for column in columns]
                yield self._missing(int(starts[row, columns[0]]), layer, names)
        self._seen.update(compress(window.variables, np.any(window.present, axis=0)))

    def _missing(self, first: int, layer: str, names: list[str]) -> Finding:
        return self._finding(
            first,
            layer=layer,
            message=(
                f"The gradient of {listed(names)} is None in the first "
                f"{with_count(self._patience, 'measured step')}, from step {first} on: the "
                "optimizer does not update "
                f"{'this variable' if len(names) == 1 else 'these variables'}."
            ),
            advice=(
                "Check for a layer whose output the loss does not use, stop_gradient, a conversion "
                "to NumPy, or an operation without a gradient (argmax, round, a cast to integer). "
                "Set trainable=False if the layer is meant to stay unchanged."
            ),
            variables=names,
            steps=self._patience,
        )
