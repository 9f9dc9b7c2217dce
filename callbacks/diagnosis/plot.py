"""Plot of a verdict: value ranges by layer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper.callbacks.diagnosis.layers import LayerCall
from gradkeeper.callbacks.diagnosis.ranges import Range
from gradkeeper.callbacks.diagnosis.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
            next((n for n, call in enumerate(calls) if _is_bad(call.returned)), None),
        )
        for layer, calls in by_layer.items()
    ]


def _together(ranges: Iterable[Range | None]) -> Range | None:
    known = [each for each in ranges if each is not None]
    if not known:
        return None
    # NaN means that a call has no finite value. Omit it if another call has one.
    lowest = [each.lowest for each in known if each.lowest == each.lowest]
    highest = [each.highest for each in known if each.highest == each.highest]
    return Range(
        min(lowest, default=float("nan")),
        max(highest, default=float("nan")),
        sum(each.nonfinite for each in known) / len(known),
        any(each.nan for each in known),
    )


def _is_bad(numbers: Range | None) -> bool:
    return numbers is not None and not numbers.is_finite


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
    forward.set_yticks(range(len(layers)), [_label(each) for each in layers])
    forward.set_ylim(len(layers) - 0.5, -0.5)
    for number, each in enumerate(layers):
        if each.path == verdict.layer:
            side = backward if verdict.place == "backward" else forward
            side.axhspan(number - 0.5, number + 0.5, color=_BAD, alpha=0.12)
    cause = f": {verdict.fault.name}" if verdict.fault else ""
    figure.suptitle(f"First not finite {verdict.where}{cause}", wrap=True)
    return figure


def _draw(axes: "Axes", title: str, ranges: Sequence[Range | None]) -> None:
    known = [(row, each) for row, each in enumerate(ranges) if each is not None]
    some = [(row, each) for row, each in known if not np.isnan(each.lowest)]
    largest = [_magnitude(each) for _, each in some]
    colours = [_GOOD if each.is_finite else _BAD for _, each in some]
    axes.scatter(largest, [row for row, _ in some], c=colours)
    for row, each in known:
        if not each.is_finite:
            share = f"× {100 * each.nonfinite:.3g} % not finite"
            axes.text(
                0.98,
                row,
                share,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                color=_BAD,
                fontsize="small",
            )
    axes.set_xscale("log")
    if largest:
        axes.set_xlim(min(largest) / 10, max(largest) * (max(largest) / min(largest) + 10) ** 0.6)
    axes.set_xlabel("largest finite magnitude")
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)


def _magnitude(numbers: Range) -> float:
    """Return the largest magnitude, at least the smallest normal float32 (for a log axis)."""
    return max(abs(numbers.lowest), abs(numbers.highest), 1.2e-38)


def _label(layer: LayerSummary) -> str:
    return layer.path if layer.calls == 1 else f"{layer.path} ({layer.calls} calls)"
