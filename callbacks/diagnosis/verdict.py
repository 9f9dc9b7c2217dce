"""What a replay has found."""

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
    """Where the first number arose that is not finite.

    Attributes:
        place: in which part of the step.
        layer: the layer, by the path that leads to it; None outside of any.
        variable: the variable concerned: the one that is not finite, or the first one, going
            backwards, whose gradient is not.
        data: which part of the batch is not finite, such as "[0], example 3"; None if all is.
        replica: the replica that was replayed.
        operation: TensorFlow's name of the operation; None where none made the number.
        gradient_of: the operation of the forward pass whose gradient it is part of.
        source: the line of code that called it (or called what it is the gradient of).
        inputs: what the operation was given.
        fault: what went wrong, with a remedy.
        message: what the operation itself said, where it has refused its inputs.
        finite_in_float64: whether the operation's result is finite in float64; None if unknown.
        finite_if_smaller: whether it is of inputs 1,024 times as small.
        step_in_float64: whether the whole step is finite in float64; None if it cannot be run so.
        step_if_smaller: whether the whole step is finite of inputs 1,024 times as small.
        loss: the step's loss; None if it has none.
        path: the calls of layers, in their order.
        capsule: what was replayed.
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
    finite_if_smaller: bool | None = None
    step_in_float64: bool | None = None
    step_if_smaller: bool | None = None
    capsule: Path | None = None

    @property
    def where(self) -> str:
        """The place in words."""
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
        """The operation in words."""
        if self.operation is None:
            return None
        of = f" of the gradient of {self.gradient_of}" if self.gradient_of else ""
        given = f", given {self.inputs}" if self.inputs else ""
        return f"{self.operation}{of}{given}"

    @property
    def facts(self) -> dict[str, str]:
        """All that was found, as heading and text."""
        found = {
            "First not finite": self.where,
            "Cause": self.fault.name if self.fault else None,
            "Message": self.message,
            "Operation": self.what,
            "Called at": str(self.source) if self.source else None,
            "In float64": _in_words(self.finite_in_float64, self.step_in_float64),
            "With inputs / 1,024": _in_words(self.finite_if_smaller, self.step_if_smaller),
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
