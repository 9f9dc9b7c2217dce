"""Rule for gradients and losses that are NaN or infinite."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.rules._clip_advice import bounded_activations, recurrent_matrix, slower
from gradkeeper.callbacks.rules._first_step import FirstStep
from gradkeeper.callbacks.rules._healthy_steps import HealthyNorms
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
        applied: list[np.ndarray] = [
            np.any(each, axis=1) & ~call.skipped for call, each in zip(calls, bad, strict=True)
        ]
        is_skipped = window.skipped
        is_finite = np.isfinite(window.global_norm) & ~np.any(_nonfinite(window), axis=1)
        bad_loss = _bad_losses(window) & is_finite & ~is_skipped
        updated = np.any(window.updated, axis=1)
        self._first.follow(window)
        self._healthy.follow(window)
        past = self._past
        for row, step in enumerate(window.steps.tolist()):
            call = next((i for i, each in enumerate(applied) if each[row]), None)
            if call is not None:
                if not past.is_bad:
                    columns = np.flatnonzero(bad[call][row])
                    yield self._gradient(window, row, calls[call], columns)
                past.is_bad = True
            elif is_finite[row]:
                past.add(step, float(window.global_norm[row]))
            if bad_loss[row] and not past.had_bad_loss:
                yield self._loss(window, row)
            past.had_bad_loss = bool(bad_loss[row])
            past.measured = step
            past.has_updated |= bool(updated[row])

    def _gradient(self, window: Window, row: int, call: Window, columns: np.ndarray) -> Finding:
        step, after = int(window.steps[row]), self._past.measured
        place = {name: column for column, name in enumerate(window.variables)}
        names = sorted((call.variables[column] for column in columns), key=lambda n: place[n])
        count = int(call.nonfinite[row, columns].sum())
        kind = "NaN" if np.isnan(call.norms[row, columns]).any() else "Inf"
        replicas = _nonfinite_replicas(call, row)
        evidence = {
            "variables": names,
            "kind": kind,
            "elements": count,
            "after_step": after,
            "last_finite_step": self._past.finite_step,
            "last_finite_norm": self._past.norms[-1] if self._past.norms else None,
        }
        return Finding(
            step=step,
            layer=layer_of(names[-1]),
            rule=self.name,
            severity="error",
            message=(
                f"The gradient is {kind} in {len(names)} of {len(window.variables)} variables "
                f"({listed(names)}), {_elements(count)}; the variable nearest the output "
                f"is {names[-1]}.{_which_call(window, call)}{_between(after, step)}"
                f"{_where(call, row, replicas)}{self._before()}"
            ),
            advice=self._advice(window.facts, layer_of(names[-1])),
            evidence=evidence | ({"replicas": replicas} if replicas else {}),
        )

    def _loss(self, window: Window, row: int) -> Finding:
        loss = window.scalar("loss")[row]
        kind = "NaN" if np.isnan(loss) else "infinite"
        losses = window.replica_losses[row]
        replicas = (window.first_replica + np.flatnonzero(~np.isfinite(losses))).tolist()
        on = f" on replica {', '.join(map(str, replicas))}" if replicas else ""
        step = int(window.steps[row])
        return Finding(
            step=step,
            layer="",
            rule=self.name,
            severity="error",
            message=(
                f"The loss of step {step} is {kind}{on}, while every gradient is finite (norm "
                f"{window.global_norm[row]:.3g})."
            ),
            advice=self._advice_on_loss(window.facts, kind, replicas),
            evidence={
                "kind": "NaN" if kind == "NaN" else "Inf",
                "norm": float(window.global_norm[row]),
                **({"replicas": replicas} if replicas else {}),
            },
        )

    def _before(self) -> str:
        past = self._past
        if past.finite_step is None:
            return " No earlier step had a finite gradient."
        norm = past.norms[-1]
        return f" The last finite gradient, at step {past.finite_step}, had norm {norm:.3g}."

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
        scaling = self._first.input_advice() if bounded else self._first.advice()
        first = (
            "If the first update was too large, lower the learning rate. Otherwise check for NaN "
            "or Inf in this step's batch, and for log(0) or a division by zero."
        )
        return " ".join(filter(None, [scaling or first, bounded, lost]))

    def _against_growth(self, facts: RunFacts, layer: str) -> str:
        grew = (
            f"The norm grew to {self._past.norms[-1]:.3g} from a median of "
            f"{np.median(self._past.norms[:-1]):.3g} in the preceding steps."
        )
        bounded = bounded_activations(facts)
        scaling = self._first.input_advice() if bounded else self._first.advice()
        if bounded or scaling:
            return " ".join(filter(None, [grew, scaling, bounded]))
        limit = self._healthy.limit(self._past.finite_step)
        return f"{grew} {slower(facts, limit)} {recurrent_matrix(facts, layer)}".rstrip()

    def _advice_on_loss(self, facts: RunFacts, kind: str, replicas: list[int]) -> str:
        if kind != "NaN":
            return (
                "The loss overflows. "
                + (self._against_growth(facts, "") if self._past.grew else self._first.advice())
            ).rstrip()
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


def _bad_losses(window: Window) -> np.ndarray:
    """Return the non-finite losses, bool [steps]; NaN counts only if the run records a loss."""
    loss = window.scalar("loss")
    return np.isinf(loss) | (np.isnan(loss) & window.facts.has_loss)


def _elements(count: int) -> str:
    if not count:
        return "whose elements are finite while the norm overflows"
    return f"{count:,} element{'s' if count > 1 else ''} in total"


def _which_call(window: Window, call: Window) -> str:
    """Return the number of the optimizer call as text; "" if the step has one call."""
    if not window.calls:
        return ""
    number = next(i for i, each in enumerate(window.calls) if each is call) + 1
    return f" The first affected call is optimizer call {number} of {len(window.calls)}."


def _between(after: int | None, step: int) -> str:
    """Return the range of steps as text; "" if every step in it was measured."""
    thinned = after is not None and after < step - 1
    return f" The fault occurred between step {after} and step {step}." if thinned else ""


def _where(window: Window, row: int, replicas: list[int]) -> str:
    """Return the replicas with a non-finite gradient as text; "" on a single device."""
    norms = window.replica_global_norms[row]
    if len(norms) and bool(np.all(norms < _FAR_FROM_INF)):
        return " The source is a replica of another worker."
    return f" The source is replica {', '.join(map(str, replicas))}." if replicas else ""


def _nonfinite_replicas(window: Window, row: int) -> list[int]:
    """Return the replicas with a non-finite gradient; none on a single device."""
    norms = window.replica_global_norms[row]
    return (window.first_replica + np.flatnonzero(~np.isfinite(norms))).tolist()
