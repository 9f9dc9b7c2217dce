"""Plot of the ranges of values along a replayed step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper.callbacks.diagnosis.ranges import Range
from gradkeeper.callbacks.diagnosis.summary import LayerSummary, summaries
from gradkeeper.callbacks.diagnosis.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
