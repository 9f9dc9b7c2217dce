"""Rule for attention logits that grow during training."""

from collections.abc import Iterator

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._text import span, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._activations import FirstValues, LatestValues, layer_of_call
from gradkeeper.callbacks.rules._series import Streaks
from gradkeeper.callbacks.rules.advice import FirstStep, smaller_logits
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.window import Window


class AttentionLogitGrowth(Rule):
    """Attention layers whose largest logit grows beyond any useful value.

    A difference of 100 between two logits is a ratio of e^100 between two attention weights. Logits
    that grow without limit preceded the divergence of large vision transformers: Dehghani et al.:
    "Scaling Vision Transformers to 22 Billion Parameters", 2023, arXiv 2302.05442. The training of
    Kimi K2 limited the logits to 100: Kimi Team: "Kimi K2: Open Agentic Intelligence", 2025, arXiv
    2507.20534.

    The rule requires `measurements=["activations"]`. It reads scaled logits.

    Args:
        limit: largest logit of a healthy layer. Softmax depends on differences of logits, so that
            the limit does not depend on the scale of the model.
        ratio: ratio to the largest logit of the first measured step, above which it has grown.
        patience: number of consecutive measured steps with both conditions. One step suffices if
            the next gradient is not finite.
    """

    name = "attention_logit_growth"

    def __init__(self, *, limit: float = 100.0, ratio: float = 10.0, patience: int = 10) -> None:
        self._limit = number("limit", limit)
        self._ratio = number("ratio", ratio, "(1, inf]")
        self._patience = integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        self._first = FirstStep()
        self._first_logits = FirstValues()
        self._streaks = Streaks()
        self._latest_logits = LatestValues()
        self._reported: set[tuple[str, int]] = set()

    def check(self, window: Window) -> Iterator[Finding]:
        self._first.follow(window)
        calls, logits = window.activations.names, window.activations.value("max_logit")
        first = self._first_logits.follow(calls, logits)
        latest = self._latest_logits.follow(calls, logits)
        grown = (logits > self._limit) & (logits > self._ratio * first)
        lengths, starts = self._streaks.follow(calls, window.steps, grown, ~np.isnan(logits))
        fails = window.nonfinite.any(axis=1, keepdims=True) & (lengths > 0)
        for row, column in np.argwhere(fails | (grown & (lengths == self._patience))).tolist():
            call, start, last = calls[column], int(starts[row, column]), int(window.steps[row])
            if (call, start) in self._reported:
                continue
            self._reported.add((call, start))
            layer, logit = layer_of_call(call), float(latest[row, column])
            steps, before = int(lengths[row, column]), float(first[row, column])
            when, fault = span(start, last), ""
            if fails[row, column]:
                when = f"from step {start}"
                fault = f" The gradient of step {last} is not finite."
            yield self._finding(
                start,
                layer=layer,
                message=(
                    f"For {with_count(steps, 'measured step')} ({when}) the largest "
                    f"attention logit of {call} has been above {self._limit:g} ({logit:.3g} in the "
                    f"last, {before:.3g} in the first measured step).{fault}"
                ),
                advice=self._first.inputs_or(smaller_logits(window.facts, layer, from_start=False)),
                logit=logit,
                first_logit=before,
                steps=steps,
                last_step=last,
            )
