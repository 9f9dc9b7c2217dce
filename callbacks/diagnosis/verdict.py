"""Result of a replay, as text and as a plot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from gradkeeper.callbacks.diagnosis.faults import Fault
from gradkeeper.callbacks.diagnosis.operations import Range, all_finite
from gradkeeper.callbacks.diagnosis.source import Source
from gradkeeper.callbacks.diagnosis.step_trace import LayerCall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        operation: TensorFlow's operation type, or the JAX primitive; None if no operation produced
            the value.
        gradient_of: the forward operation whose gradient the operation belongs to.
        source: the line of code that called the operation, or the forward operation.
        inputs: range of the operation's inputs.
        fault: cause and remedy.
        message: error message of an operation that rejected its inputs.
        finite_in_float64: whether the operation's result is finite in float64; None if unknown.
        finite_at_smaller_scale: whether the operation's result is finite with inputs divided by
            1,024; None if unknown.
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
        details = {
            "at": self.data,
            "in layer": self.layer,
            "variable": self.variable,
            "on replica": self.replica,
        }
        parts = [f"{name} {value}" for name, value in details.items() if value]
        return ", ".join([_WHERE[self.place], *parts])

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
    results = {"the operation": operation, "the whole step": step}.items()
    return ", ".join(
        f"{name} is {'finite' if finite else 'not finite'}"
        for name, finite in results
        if finite is not None
    )


@dataclass(frozen=True)
class LayerSummary:
    """Summary of all calls of a layer in a step. A recurrent cell has one call per time step.

    Attributes:
        path: path of the layer, from the model on.
        calls: number of calls.
        returned: range of the outputs.
        gradient: range of the gradients with respect to the outputs; None if not recorded.
        first_bad: index of the first call with a non-finite output; None if all are finite.
    """

    path: str
    calls: int
    returned: Range | None
    gradient: Range | None
    first_bad: int | None


def summaries(path: Sequence[LayerCall]) -> list[LayerSummary]:
    """Return one summary per layer, in order of the first calls."""
    by_layer: dict[str, list[LayerCall]] = {}
    for call in path:
        by_layer.setdefault(call.path, []).append(call)
    return [
        LayerSummary(
            layer,
            len(calls),
            _together(call.returned for call in calls),
            _together(call.gradient for call in calls),
            next((n for n, call in enumerate(calls) if not all_finite(call.returned)), None),
        )
        for layer, calls in by_layer.items()
    ]


def _together(ranges: Iterable[Range | None]) -> Range | None:
    known = [each for each in ranges if each is not None]
    if not known:
        return None
    # A call without a finite value has NaN as limits. Omit them if another call has one.
    finite = [each for each in known if not np.isnan(each.lowest)] or known
    return Range(
        min(each.lowest for each in finite),
        max(each.highest for each in finite),
        sum(each.nonfinite for each in known) / len(known),
        any(each.nan for each in known),
    )


_GOOD, _BAD = "tab:blue", "tab:red"


def plot_verdict(verdict: Verdict) -> "Figure":
    """Plot the largest magnitude of each layer's outputs and of the gradients of the outputs.

    Layers are listed from top to bottom in order of their calls: the forward pass goes down, the
    backward pass goes up. Red marks non-finite values; a label shows their share in percent.
    """
    from matplotlib.figure import Figure

    layers = summaries(verdict.path)
    height = 1.6 + 0.32 * max(len(layers), 1)
    figure = Figure(figsize=(10, height), layout="constrained")
    forward, backward = figure.subplots(1, 2, sharey=True)
    _draw(forward, "forward: outputs ↓", [each.returned for each in layers])
    _draw(backward, "backward: gradients ↑", [each.gradient for each in layers])
    labels = [
        each.path if each.calls == 1 else f"{each.path} ({each.calls} calls)" for each in layers
    ]
    forward.set_yticks(range(len(layers)), labels)
    forward.set_ylim(len(layers) - 0.5, -0.5)
    for number, each in enumerate(layers):
        if each.path == verdict.layer:
            side = backward if verdict.place == "backward" else forward
            side.axhspan(number - 0.5, number + 0.5, color=_BAD, alpha=0.12)
    cause = f": {verdict.fault.name}" if verdict.fault else ""
    figure.suptitle(f"First not finite {verdict.where}{cause}", wrap=True)
    return figure


def _draw(axes: "Axes", title: str, ranges: Sequence[Range | None]) -> None:
    # A log axis has no 0: draw at least the smallest normal float32.
    points = {
        row: max(each.magnitude, 1.2e-38)
        for row, each in enumerate(ranges)
        if each is not None and not np.isnan(each.magnitude)
    }
    colours = [_GOOD if all_finite(ranges[row]) else _BAD for row in points]
    axes.scatter(list(points.values()), list(points), c=colours)
    style: dict[str, Any] = {"ha": "right", "va": "center", "color": _BAD, "fontsize": "small"}
    for row, each in enumerate(ranges):
        if each is not None and not each.is_finite:
            share = f"× {100 * each.nonfinite:.3g} % not finite"
            axes.text(0.98, row, share, transform=axes.get_yaxis_transform(), **style)
    axes.set_xscale("log")
    if points:
        smallest, largest = min(points.values()), max(points.values())
        axes.set_xlim(smallest / 10, largest * (largest / smallest + 10) ** 0.6)
    axes.set_xlabel("largest finite magnitude")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
