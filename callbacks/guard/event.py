"""Event of a train step that triggered a guard, and the error that reports it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks._workers import has_several_workers
from gradkeeper.callbacks.window import layer_of

Cause: TypeAlias = Literal["gradient", "loss", "norm", "learning_rate", "state", "update"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

# float32 overflows when a larger gradient is squared.
_LARGEST_SQUARED = 1.8e19


@dataclass(frozen=True, eq=False)
class GuardEvent:
    """A train step that triggered a guard.

    Attributes:
        step: the train step, counted from the run's first.
        cause: the first of these that was non-finite: "gradient", "loss", "learning_rate", or
            "state" (a moving average or another value that a layer assigns in the forward
            pass). "update" if the update made a variable non-finite. "norm" if the gradient
            is finite but too large.
        loss: the step's loss on the first replica; NaN if unknown.
        norm: the global norm of the gradient passed to the optimizer.
        variables: paths of the trained variables. For "state" and "update", paths of the
            variables that were checked.
        norms: norm of each variable's gradient (of its value for "state" and "update"),
            [replicas, variables].
        nonfinite: number of non-finite elements in each of these, [replicas, variables].
        rows: the replica of each row. Rows of other workers are not included.
        losses: the loss on each of these replicas; NaN where unknown.
        learning_rate: the learning rate; NaN if unknown.
        capsule: the capsule directory of the step; None if there is none.
        own_parts: names of the model's custom classes and functions, which a replay needs.
    """

    step: int
    cause: Cause
    loss: float
    norm: float
    variables: tuple[str, ...]
    norms: np.ndarray
    nonfinite: np.ndarray
    rows: tuple[int, ...] = (0,)
    losses: tuple[float, ...] = ()
    learning_rate: float = float("nan")
    capsule: Path | None = None
    own_parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, cause: Cause, norm: float, statistics: np.ndarray, **fields: Any) -> "GuardEvent":
        """Return the event with these statistics.

        Args:
            cause: the cause; "norm" if it is "gradient" and only the squares are non-finite.
            norm: the global norm; NaN to compute it from the statistics.
            statistics: norm, largest magnitude and number of non-finite elements of each
                gradient or value, [replicas, 3, variables].
            **fields: the other fields.
        """
        norms, largest, nonfinite = (statistics[:, row] for row in range(3))
        counts = nonfinite.astype(np.int64)
        if cause == "gradient" and not counts.any() and (largest > _LARGEST_SQUARED).any():
            cause = "norm"
        if np.isnan(norm):
            norm = float(np.linalg.norm(norms.astype(np.float64)))
        return cls(cause=cause, norm=norm, norms=norms, nonfinite=counts, **fields)

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers of the variables with non-finite elements, in the model's order."""
        return tuple(dict.fromkeys(map(layer_of, self._bad_variables)))

    @property
    def replicas(self) -> tuple[int, ...]:
        """Return the replicas with non-finite elements, or with a non-finite loss for "loss"."""
        bad = self.nonfinite.sum(axis=1) > 0
        if self.cause == "loss" and self.losses:
            bad |= ~np.isfinite(self.losses)
        return tuple(replica for replica, is_bad in zip(self.rows, bad, strict=True) if is_bad)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the event as values that JSON can store."""
        return {
            "step": self.step,
            "cause": self.cause,
            "loss": self.loss,
            "losses": list(self.losses),
            "norm": self.norm,
            "learning_rate": self.learning_rate,
            "gradients": {
                "variables": list(self.variables),
                "norms": self.norms.tolist(),
                "nonfinite": self.nonfinite.tolist(),
            },
        }

    @property
    def how_to_replay(self) -> str:
        """Return the command that replays the step, at the end of a line; "" without a capsule."""
        if self.capsule is None:
            return ""
        command = f"gradkeeper replay {self.capsule}"
        if not self.own_parts:
            return f"Replay it: {command}"
        return (
            f"The model has custom parts ({listed(self.own_parts)}): to replay it, name a function "
            "that takes no argument and returns the compiled model (MODULE:FUNCTION or "
            f"FILE.py:FUNCTION):\n  {command} --model YOUR_MODULE:FUNCTION"
        )

    def __str__(self) -> str:
        return f"Step {self.step:,}: {self._what()}"

    @property
    def _bad_variables(self) -> list[str]:
        bad = self.nonfinite.sum(axis=0) > 0
        return [name for name, is_bad in zip(self.variables, bad, strict=True) if is_bad]

    @property
    def _loss(self) -> str:
        return "" if np.isnan(self.loss) else f" (loss {self.loss:g})"

    def _what(self) -> str:
        if self.cause == "norm":
            return f"the gradient's norm is {self.norm:.3g}{self._loss}."
        if self.cause == "learning_rate":
            return f"the learning rate is {self.learning_rate:g}."
        where = ""
        if len(self.rows) > 1:
            where = f" on replica {', '.join(map(str, self.replicas))} of {len(self.rows)}"
        if self.cause == "loss" and not self.layers:
            losses = [loss for loss in self.losses if not np.isfinite(loss)]
            return f"the loss is {[*losses, self.loss][0]:g}{where}; every gradient is finite."
        if self.cause in ("update", "state"):
            source = "update" if self.cause == "update" else "forward pass"
            names = listed(self._bad_variables)
            return f"the {source} makes {names} non-finite; every gradient is finite."
        if not self.layers:
            on = " on another worker" if has_several_workers() else ""
            return f"non-finite gradients{on}{self._loss}."
        return f"non-finite gradients in {listed(self.layers)}{where}{self._loss}."


class NonFiniteGradientError(RuntimeError):
    """Raised after a skipped train step if the guard's policy says so.

    Attributes:
        event: the event of the step.
        step: the train step, counted from the run's first.
        layers: the layers with non-finite gradients.
        capsule: the capsule directory of the step; None if there is none.
    """

    def __init__(self, event: GuardEvent) -> None:
        super().__init__(f"{event} {event.how_to_replay}".rstrip())
        self.event = event
        self.step = event.step
        self.layers = event.layers
        self.capsule = event.capsule
