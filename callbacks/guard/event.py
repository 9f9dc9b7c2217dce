"""What a guard has seen in one train step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.window import layer_of

Cause: TypeAlias = Literal["gradient", "loss", "norm"]


@dataclass(frozen=True, eq=False)
class GuardEvent:
    """A train step that triggered a guard.

    Attributes:
        step: the train step, counted from the run's first.
        cause: "gradient" or "loss" where one was not finite, "norm" where the gradient was too
            large.
        loss: the step's loss, as the first replica saw it; NaN where the model has none.
        norm: the global norm of the gradient that was to be applied.
        variables: paths of the trained variables.
        norms: norm of each variable's gradient, [replicas, variables].
        nonfinite: number of its elements that are not finite, [replicas, variables].
        rows: which replica each row is of; those of other workers are not here.
        capsule: the folder from which the step can be replayed; None if there is none.
    """

    step: int
    cause: Cause
    loss: float
    norm: float
    variables: tuple[str, ...]
    norms: np.ndarray
    nonfinite: np.ndarray
    rows: tuple[int, ...] = (0,)
    capsule: Path | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with a gradient that is not finite, in the model's order."""
        bad = self.nonfinite.sum(axis=0) > 0
        names = (layer_of(name) for name, is_bad in zip(self.variables, bad, strict=True) if is_bad)
        return tuple(dict.fromkeys(names))

    @property
    def replicas(self) -> tuple[int, ...]:
        """The replicas with a gradient that is not finite."""
        bad = self.nonfinite.sum(axis=1) > 0
        return tuple(replica for replica, is_bad in zip(self.rows, bad, strict=True) if is_bad)

    @property
    def facts(self) -> dict[str, Any]:
        """The event in JSON's types."""
        return {
            "step": self.step,
            "cause": self.cause,
            "loss": self.loss,
            "norm": self.norm,
            "gradients": {
                "variables": list(self.variables),
                "norms": self.norms.tolist(),
                "nonfinite": self.nonfinite.tolist(),
            },
        }

    def __str__(self) -> str:
        if self.cause == "norm":
            return (
                f"Step {self.step:,}: the gradient's norm is {self.norm:.3g} (loss {self.loss:g})."
            )
        layers = self.layers
        if self.cause == "loss" and not layers:
            return f"Step {self.step:,}: the loss is {self.loss:g}; every gradient is finite."
        if not layers:
            on = " on another worker" if _has_several_workers() else ""
            return f"Step {self.step:,}: gradients that are not finite{on} (loss {self.loss:g})."
        some = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        where = ""
        if len(self.nonfinite) > 1:
            where = f" on replica {', '.join(map(str, self.replicas))} of {len(self.nonfinite)}"
        return (
            f"Step {self.step:,}: gradients that are not finite in {some}{where} "
            f"(loss {self.loss:g})."
        )


def _has_several_workers() -> bool:
    """Return whether several processes train together; each sees the devices of all of them."""
    names = [device.name for device in tf.config.list_logical_devices()]
    return len({name.partition("/device:")[0] for name in names}) > 1
