"""Result of a replay."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from gradkeeper.callbacks.diagnosis.faults import Fault
from gradkeeper.callbacks.diagnosis.layers import LayerCall
from gradkeeper.callbacks.diagnosis.ranges import Range
from gradkeeper.callbacks.diagnosis.source import Source

Place: TypeAlias = Literal["data", "weights", "forward", "loss", "backward", "optimizer", "none"]

_WHERE: dict[Place, str] = {
    "data": "in the data",
    "weights": "in the weights",
    "forward": "in the forward pass",
    "loss": "in the loss",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's update",
    "none": "nowhere: every number is finite in the replay",
}


@dataclass(frozen=True)
class Verdict:
    """Location and cause of the first non-finite value of a train step.

    Attributes:
        place: part of the step in which the value arose; "none" if the replay is finite.
        replica: the replayed replica.
        loss: loss of the step; None if it has none.
        path: the layer calls in order of execution.
        layer: path of the layer; None outside of a layer.
        variable: the non-finite variable, or the one whose gradient is the first non-finite one
            in the backward pass.
        data: location in the batch, such as "[0], example 3"; None if the batch is finite.
        operation: TensorFlow's operation type; None if no operation produced the value.
        gradient_of: the forward operation whose gradient the operation belongs to.
        source: the line of code that called the operation, or the forward operation.
        inputs: range of the operation's inputs.
        fault: cause and remedy.
        message: error message of an operation that rejected its inputs.
        finite_in_float64: whether the operation's result is finite in float64; None if unknown.
        finite_at_smaller_scale: whether the operation's result is finite with inputs divided by 1,024;
            None if unknown.
        step_in_float64: whether the whole step is finite in float64; None if unknown.
        step_if_smaller: whether the whole step is finite with the batch's inputs divided by
            1,024; None if unknown.
        capsule: directory of the replayed capsule.
    """

    place: Place
    replica: int
    loss: float | None
    path: tuple[LayerCall, ...]
    layer: str | None = None
    variable: str | None = None
    data: str | None = None
    operation: str | None = None
    gradient_of: str | None = None
    source: Source | None = None
    inputs: Range | None = None
    fault: Fault | None = None
    message: str | None = None
    finite_in_float64: bool | None = None
    finite_at_smaller_scale: bool | None = None
    step_in_float64: bool | None = None
    step_if_smaller: bool | None = None
    capsule: Path | None = None

    @property
    def where(self) -> str:
        """Return the location as text."""
        parts = [_WHERE[self.place]]
        if self.data:
            parts.append(f"at {self.data}")
        if self.layer:
            parts.append(f"in layer {self.layer}")
        if self.variable:
            parts.append(f"variable {self.variable}")
        if self.replica:
            parts.append(f"on replica {self.replica}")
        return ", ".join(parts)

    @property
    def what(self) -> str | None:
        """Return the operation as text; None if no operation produced the value."""
        if self.operation is None:
            return None
        of = f" of the gradient of {self.gradient_of}" if self.gradient_of else ""
        given = f", given {self.inputs}" if self.inputs else ""
        return f"{self.operation}{of}{given}"

    @property
    def facts(self) -> dict[str, str]:
        """Return all results as text by heading."""
        found = {
            "First not finite": self.where,
            "Cause": self.fault.name if self.fault else None,
            "Message": self.message,
            "Operation": self.what,
            "Called at": str(self.source) if self.source else None,
            "In float64": _in_words(self.finite_in_float64, self.step_in_float64),
            "With inputs / 1,024": _in_words(self.finite_at_smaller_scale, self.step_if_smaller),
            "Remedy": self.fault.remedy if self.fault else None,
        }
        return {heading: text for heading, text in found.items() if text}

    def __str__(self) -> str:
        return "\n".join(f"{heading}: {text}" for heading, text in self.facts.items())


def _in_words(operation: bool | None, step: bool | None) -> str:
    words = {True: "finite", False: "not finite"}
    parts = []
    if operation is not None:
        parts.append(f"the operation is {words[operation]}")
    if step is not None:
        parts.append(f"the whole step is {words[step]}")
    return ", ".join(parts)
