"""Rule for attention weights that are concentrated on single keys."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._activations import FirstValues, Learning, layer_of_call
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.advice import FirstStep, smaller_logits
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class AttentionCollapse(Rule):
    """Attention layers of which each query attends to a single key, before the model has learned.

    The rule compares the entropy of the attention weights with its largest value, the logarithm of
    the number of visible keys. Transformer trainings in which this entropy collapses oscillate or
    diverge: Zhai et al.: "Stabilizing Transformer Training by Preventing Attention Entropy
    Collapse", 2023, arXiv 2303.06296. Attention may also be concentrated because the model has
    learned which key it needs. The rule therefore ignores a low entropy that arises during
    training, if the loss is below `learned` times the loss of the first step. It also ignores an
    entropy that is low from the start of a continued training.

    The rule requires `measurements=["activations"]`.

    Args:
        ratio: ratio of the entropy to its largest value, below which the attention has collapsed.
        patience: number of consecutive measured steps with such an entropy.
        learned: ratio of the loss to that of the first step, below which the model has learned.
    """

    name = "attention_collapse"

    def __init__(self, *, ratio: float = 0.05, patience: int = 20, learned: float = 0.9) -> None:
        self._ratio = number("ratio", ratio, "(0, 1)")
        self._patience = integer("patience", patience)
        self._learned = number("learned", learned, "[0, 1]")
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._first_ratios = FirstValues()
        self._learning = Learning(self._learned)
        self._streaks = Streaks()
        self._is_continued: bool | None = None

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        if self._is_continued is None and len(window):
            self._is_continued = int(window.steps[0]) > 0
        has_learned = self._learning.follow(window.scalar("loss"))
        calls, entropy = window.activations.names, window.activations.value("entropy")
        largest = window.activations.value("max_entropy")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(largest > 0, entropy / largest, np.nan)
        from_start = self._first_ratios.follow(calls, ratios) < self._ratio
        is_fault = np.where(from_start, not self._is_continued, ~has_learned[:, None])
        collapsed = (ratios < self._ratio) & is_fault
        lengths, starts = self._streaks.follow(calls, window.steps, collapsed, ~np.isnan(ratios))
        for row, column in np.argwhere(collapsed & (lengths == self._patience)).tolist():
            call, first, last = calls[column], int(starts[row, column]), int(window.steps[row])
            layer = layer_of_call(call)
            yield self._finding(
                first,
                layer=layer,
                message=(
                    f"For {with_count(self._patience, 'measured step')} ({span(first, last)}) the "
                    f"entropy of the attention weights of {call} has been below {self._ratio:.0%} "
                    f"of its largest value ({entropy[row, column]:.3g} of "
                    f"{largest[row, column]:.3g} nats): each query attends to a single key."
                ),
                advice=self._first.inputs_or(
                    smaller_logits(window.facts, layer, from_start=bool(from_start[row, column]))
                ),
                entropy=float(entropy[row, column]),
                largest=float(largest[row, column]),
                steps=self._patience,
                last_step=last,
            )
