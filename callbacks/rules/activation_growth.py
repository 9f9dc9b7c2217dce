"""Rule for layer outputs that grow during training, or from layer to layer."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, times, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._activations import (
    FirstValues,
    Learning,
    is_hidden,
    layer_of_call,
)
from gradkeeper.callbacks.rules._series import Streaks, finite_or_none
from gradkeeper.callbacks.rules.advice import FirstStep, bounded_activations
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window


class ActivationGrowth(Rule):
    """Hidden outputs that grow during training, or from the first layer to a later one.

    The size of an output is the root mean square of its elements. The rule reports a layer

    - whose output has grown beyond `ratio` times the largest hidden output in the first measured
      step, while the loss is not below that of the first step;
    - whose output in the first measured step is more than `depth_ratio` times as large as that of
      the first layer with variables. Only layers with variables count.

    The rule requires `measurements=["activations"]`. It ignores the layers that compute the outputs
    of the model, whose size depends on the targets, and steps whose gradient is not finite. Of the
    layers that grow, it reports the one with the largest output.

    Args:
        ratio: growth during training.
        patience: number of consecutive measured steps with this growth.
        depth_ratio: growth from layer to layer.
    """

    name = "activation_growth"

    def __init__(
        self, *, ratio: float = 100.0, patience: int = 5, depth_ratio: float = 1000.0
    ) -> None:
        self._ratio = number("ratio", ratio, "(1, inf]")
        self._patience = integer("patience", patience)
        self._depth_ratio = number("depth_ratio", depth_ratio, "(1, inf]")
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._first_sizes = FirstValues()
        self._learning = Learning(1.0)
        self._streaks = Streaks()
        self._largest = np.nan
        self._has_begun = self._has_grown = False

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        has_learned = self._learning.follow(window.scalar("loss"))
        if not window.activations.names or not len(window):
            return
        mean, std = (window.activations.value(name).astype(float) for name in ("mean", "std"))
        is_known = np.isfinite(window.global_norm)[:, None] & is_hidden(window)
        sizes = np.where(is_known, np.hypot(mean, std), np.nan)
        yield from self._by_depth(window, sizes)
        yield from self._by_time(window, sizes, has_learned)

    def _by_depth(self, window: Window, sizes: np.ndarray) -> Iterator[Finding]:
        """Yield the finding of the first measured step."""
        rows = np.flatnonzero(np.isfinite(sizes).any(axis=1))
        if self._has_begun or not len(rows):
            return
        self._has_begun, row = True, int(rows[0])
        calls = window.activations.names
        columns = [
            column
            for column, call in enumerate(calls)
            if sizes[row, column] > 0
            and any(name.startswith(f"{layer_of_call(call)}/") for name in window.variables)
        ]
        if not columns:
            return
        begin, end = columns[0], max(columns, key=lambda column: sizes[row, column])
        size, before = float(sizes[row, end]), float(sizes[row, begin])
        if size <= self._depth_ratio * before:
            return
        step, layer = int(window.steps[row]), layer_of_call(calls[end])
        advice = bounded_activations(window.facts, layer) or (
            "Use smaller initial weights (he_normal, glorot_uniform) or a normalization layer "
            "between the layers."
        )
        yield self._finding(
            step,
            layer=layer,
            message=(
                f"In the first measured step, the output of {calls[end]} has a root mean square of "
                f"{size:.3g}, {times(size / before)} that of {calls[begin]} ({before:.3g})."
            ),
            advice=advice,
            size=size,
            first_size=before,
            last_step=step,
        )

    def _by_time(
        self, window: Window, sizes: np.ndarray, has_learned: np.ndarray
    ) -> Iterator[Finding]:
        calls = window.activations.names
        first = self._first_sizes.follow(calls, sizes)
        largest = np.fmax.accumulate(np.fmax.reduce(first, axis=1))
        largest = np.fmax(largest, self._largest)
        self._largest = float(largest[-1])
        grows = (sizes > self._ratio * largest[:, None]) & ~has_learned[:, None]
        lengths, starts = self._streaks.follow(calls, window.steps, grows, ~np.isnan(sizes))
        reached = grows & (lengths == self._patience)
        if self._has_grown or not reached.any():
            return
        self._has_grown, row = True, int(np.argmax(reached.any(axis=1)))
        column = int(np.argmax(np.where(reached[row], sizes[row], 0)))
        start, last = int(starts[row, column]), int(window.steps[row])
        size, before = float(sizes[row, column]), float(largest[row])
        yield self._finding(
            start,
            layer=layer_of_call(calls[column]),
            message=(
                f"For {with_count(self._patience, 'measured step')} ({span(start, last)}) the "
                f"output of {calls[column]} has been more than {self._ratio:g} times as large as "
                f"any hidden output in the first measured step: its root mean square is {size:.3g} "
                f"({before:.3g} in the first)."
            ),
            advice=self._advice(window.facts, float(window.scalar("loss")[row])),
            size=finite_or_none(size),
            first_size=before,
            steps=self._patience,
            last_step=last,
        )

    def _advice(self, facts: RunFacts, loss: float) -> str:
        if loss < min(0, self._first.loss):
            return (
                f"The loss has decreased to {loss:.3g}. If it has no lower bound, use a loss that "
                "has one (hinge, crossentropy)."
            )
        return self._first.advice(facts) or (
            "Divide the learning rate by 10, and repeat this if the outputs still grow. If that is "
            "not enough, use LayerNormalization between the layers."
        )
