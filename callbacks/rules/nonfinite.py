"""Rule for gradients and losses that are NaN or infinite."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradkeeper.callbacks._text import listed, with_count
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules.advice import (
    FirstStep,
    bounded_activations,
    recurrent_matrix,
    slower,
)
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window, layer_of

# Norms below this value do not sum to Inf in float32, for any number of replicas.
_FAR_FROM_INF = 1e30
# Ratio of the last norm to the median of the preceding norms above which the norms grew.
_GREW = 10.0
_NORMS_KEPT = 20


@dataclass
class _Past:
    """State of the rule from the steps before the current row."""

    measured: int | None = None
    finite_step: int | None = None
    norms: list[float] = field(default_factory=list)  # the last finite ones
    has_updated: bool = False
    is_bad: bool = False
    had_bad_loss: bool = False

    def add(self, step: int, norm: float) -> None:
        """Record a step with a finite gradient."""
        self.finite_step, self.is_bad = step, False
        self.norms = [*self.norms, norm][-_NORMS_KEPT:]

    @property
    def grew(self) -> bool:
        """True if the last finite norm is far above the preceding norms."""
        before = self.norms[:-1]
        return bool(before) and self.norms[-1] > _GREW * float(np.median(before))


class NonFiniteGradient(Rule):
    """The first step at which a gradient or the loss is NaN or infinite.

    Gradients are read before clipping, because one NaN makes every gradient NaN that
    `global_clipnorm` clips. If a train step calls several optimizers, the rule reports the first
    call with a non-finite gradient. Backpropagation computes gradients from the loss towards the
    input, so the finding names the layer of the affected variable nearest the output.

    A non-finite loss with finite gradients is a separate finding without a layer. A step that
    loss scaling skipped for overflow, or that a guard skipped, changed no weight and is not a
    finding.
    """

    name = "nonfinite"
    active_during_warmup = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._past = _Past()
        self._first = FirstStep()
        self._healthy = HealthyNorms()

    def check(self, window: Window) -> Iterator[Finding]:
        calls = window.calls or (window,)
        bad = [_nonfinite(call) for call in calls]
        applied = [each.any(axis=1) & ~call.skipped for call, each in zip(calls, bad, strict=True)]
        is_finite = np.isfinite(window.global_norm) & ~_nonfinite(window).any(axis=1)
        loss = window.scalar("loss")
        # Without `has_loss`, NaN stands for a loss that was not recorded.
        bad_loss = np.isinf(loss) | (np.isnan(loss) & window.facts.has_loss)
        bad_loss &= is_finite & ~window.skipped
        self._first.follow(window)
        self._healthy.follow(window)
        past = self._past
        for row, step in enumerate(window.steps.tolist()):
            number = next((i for i, each in enumerate(applied) if each[row]), None)
            if number is not None:
                if not past.is_bad:
                    yield self._gradient(window, row, number, np.flatnonzero(bad[number][row]))
                past.is_bad = True
            elif is_finite[row]:
                past.add(step, float(window.global_norm[row]))
            if bad_loss[row] and not past.had_bad_loss:
                yield self._loss(window, row)
            past.had_bad_loss = bool(bad_loss[row])
            past.measured = step
            past.has_updated = past.has_updated or bool(window.updated[row].any())

    def _gradient(self, window: Window, row: int, number: int, columns: np.ndarray) -> Finding:
        step, past = int(window.steps[row]), self._past
        call = window.calls[number] if window.calls else window
        bad = {call.variables[column] for column in columns}
        names = [name for name in window.variables if name in bad]
        count = int(call.nonfinite[row, columns].sum())
        kind = "NaN" if np.isnan(call.norms[row, columns]).any() else "Inf"
        replicas = _nonfinite_replicas(call, call.replica_global_norms[row])
        return self._finding(
            step,
            layer=layer_of(names[-1]),
            severity="error",
            message=(
                f"The gradient is {kind} in {len(names)} of "
                f"{with_count(len(window.variables), 'variable')} "
                f"({listed(names)}), {_elements(count)}; the variable nearest the output "
                f"is {names[-1]}.{self._origin(window, row, number, replicas)}"
            ),
            advice=self._advice(window.facts, layer_of(names[-1])),
            variables=names,
            kind=kind,
            elements=count,
            after_step=past.measured,
            last_finite_step=past.finite_step,
            last_finite_norm=past.norms[-1] if past.norms else None,
            **({"replicas": replicas} if replicas else {}),
        )

    def _origin(self, window: Window, row: int, number: int, replicas: list[int]) -> str:
        """Return the optimizer call, the steps and the replicas of the fault as sentences."""
        step, past, text = int(window.steps[row]), self._past, ""
        call = window.calls[number] if window.calls else window
        norms = call.replica_global_norms[row]
        if window.calls:
            text += (
                f" The first affected call is optimizer call {number + 1} of {len(window.calls)}."
            )
        if past.measured is not None and past.measured < step - 1:
            text += f" The fault occurred between step {past.measured} and step {step}."
        if len(norms) and np.all(norms < _FAR_FROM_INF):
            text += " The source is a replica of another worker."
        elif replicas:
            text += f" The source is replica {', '.join(map(str, replicas))}."
        if past.finite_step is None:
            return f"{text} No earlier step had a finite gradient."
        last = f"step {past.finite_step}, had norm {past.norms[-1]:.3g}"
        return f"{text} The last finite gradient, at {last}."

    def _loss(self, window: Window, row: int) -> Finding:
        step, norm = int(window.steps[row]), float(window.global_norm[row])
        is_nan = bool(np.isnan(window.scalar("loss")[row]))
        replicas = _nonfinite_replicas(window, window.replica_losses[row])
        on = f" on replica {', '.join(map(str, replicas))}" if replicas else ""
        evidence: dict[str, Any] = {"replicas": replicas} if replicas else {}
        return self._finding(
            step,
            severity="error",
            message=(
                f"The loss of step {step} is {'NaN' if is_nan else 'infinite'}{on}, while every "
                f"gradient is finite (norm {norm:.3g})."
            ),
            advice=self._advice_on_loss(window.facts, replicas, is_nan=is_nan),
            kind="NaN" if is_nan else "Inf",
            norm=norm,
            **evidence,
        )

    def _advice(self, facts: RunFacts, layer: str) -> str:
        bounded = bounded_activations(facts)
        if not self._past.has_updated:
            return (
                f"{bounded} " * bool(bounded) + "The monitor recorded no update before this step: "
                "if training begins here, neither a lower learning rate nor clipping can help. "
                "Check for NaN or Inf in the inputs, the targets and the initial weights, and for "
                "log(0) or a division by zero in the model and the loss. Attach a NonFiniteGuard: "
                "the replay of its capsule names the operation."
            )
        lost = "The weights after this step are not usable: restore a checkpoint."
        if self._past.grew:
            return f"{self._against_growth(facts, layer)} {lost}"
        if len(self._past.norms) > 1:
            return (
                "The norms did not grow before this step: check for NaN or Inf in its batch, and "
                f"for log(0), sqrt(0) or a division by zero in the model and the loss. {lost}"
            )
        first = (
            "If the first update was too large, lower the learning rate. Otherwise check for NaN "
            "or Inf in this step's batch, and for log(0) or a division by zero."
        )
        return " ".join(filter(None, [self._scaling(facts, bounded) or first, bounded, lost]))

    def _scaling(self, facts: RunFacts, bounded: str) -> str:
        return self._first.input_advice() if bounded else self._first.advice(facts)

    def _against_growth(self, facts: RunFacts, layer: str) -> str:
        grew = (
            f"The norm grew to {self._past.norms[-1]:.3g} from a median of "
            f"{np.median(self._past.norms[:-1]):.3g} in the preceding steps."
        )
        bounded = bounded_activations(facts)
        scaling = self._scaling(facts, bounded)
        if bounded or scaling:
            return " ".join(filter(None, [grew, scaling, bounded]))
        limit = self._healthy.limit(self._past.finite_step)
        return f"{grew} {slower(facts, limit)} {recurrent_matrix(facts, layer)}".rstrip()

    def _advice_on_loss(self, facts: RunFacts, replicas: list[int], *, is_nan: bool) -> str:
        if not is_nan:
            has_grown = self._past.grew
            cause = self._against_growth(facts, "") if has_grown else self._first.advice(facts)
            return f"The loss overflows. {cause}".rstrip()
        empty = (
            "If the replica's part of the batch is empty, its mean is 0/0: use "
            "batch(..., drop_remainder=True). "
            if replicas
            else ""
        )
        return (
            f"{empty}A mean over an empty selection (a mask of zeros, a batch without examples) is "
            "0/0: divide the sum by max(count, 1). Otherwise check for NaN in the targets, the "
            "sample weights and the metrics that the loss reads."
        )


def _nonfinite(window: Window) -> np.ndarray:
    """Return the non-finite gradients, bool [steps, variables]."""
    return window.present & ((window.nonfinite > 0) | ~np.isfinite(window.norms))


def _elements(count: int) -> str:
    if not count:
        return "whose elements are finite while the norm overflows"
    return f"{with_count(count, 'element')} in total"


def _nonfinite_replicas(window: Window, values: np.ndarray) -> list[int]:
    """Return the replicas with a non-finite value, of one per replica of this worker."""
    return (window.first_replica + np.flatnonzero(~np.isfinite(values))).tolist()
