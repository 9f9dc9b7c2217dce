"""The picture of several runs' losses beside how far back in time their gradients reach."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradkeeper.training.plots import (
    draw_baseline,
    draw_loss,
    finite_or_gap,
    limit_losses,
    run_colours,
)
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import half_life

# A norm below the largest of a usual run by more than this tells no more than that it is gone.
_SPAN = 1e-12


def plot_reach(groups: Mapping[str, Mapping[str, Result]], title: str) -> Figure:
    """Loss over train steps, and ‖∂L/∂h_t‖ over time steps as last recorded; a row per group.

    Args:
        groups: per row its heading, and the runs in it by label. A label has the same colour
            in every row; a run without records has no line on the right.
        title: above the picture.
    """
    figure = Figure(figsize=(13, 0.6 + 4.2 * len(groups)), layout="constrained", dpi=110)
    figure.suptitle(title, fontweight="bold")
    panels = figure.subplots(len(groups), 2, squeeze=False, sharex="col", sharey="col")
    colours = run_colours(groups)
    for (left, right), (heading, runs) in zip(panels, groups.items(), strict=True):
        prefix = f"{heading}: " if len(groups) > 1 else ""
        left.set_title(f"{prefix}loss on the evaluation data", fontsize="medium", loc="left")
        right.set_title(f"{prefix}gradient reach", fontsize="medium", loc="left")
        for label, result in runs.items():
            draw_loss(left, label, result, colours[label])
            _draw_reach(right, label, result, colours[label])
        draw_baseline(left, next(iter(runs.values())))
        _finish(left, right)
    results = [result for runs in groups.values() for result in runs.values()]
    limit_losses(panels[0, 0], results)
    _limit_norms(panels[0, 1], results)
    return figure


def _draw_reach(axes: Axes, label: str, result: Result, colour: str) -> None:
    if result.reach is None:
        return
    norm = _positive(result.reach.norm)
    text = f"{label}: half-life {half_life(result)}"
    if not np.isfinite(norm).any():
        text = f"{label} (no finite gradient)"
    axes.plot(np.arange(len(norm)), norm, color=colour, linewidth=1.6, label=text)


def _finish(left: Axes, right: Axes) -> None:
    left.set(xlabel="train step", ylabel="loss")
    right.set(xlabel="time step t", ylabel="‖∂L/∂h_t‖ at the end of the training")
    if any(np.isfinite(line.get_ydata()).any() for line in right.lines):
        right.set_yscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(loc="best", fontsize="small", framealpha=0.9)


def _limit_norms(axes: Axes, results: Sequence[Result]) -> None:
    """Cuts the axis where a norm has all but vanished, so that the others can be told apart."""
    norms = [_positive(result.reach.norm) for result in results if result.reach is not None]
    finite = [norm[np.isfinite(norm)] for norm in norms if np.isfinite(norm).any()]
    if not finite:
        return
    lowest = min(float(norm.min()) for norm in finite)
    floor = _SPAN * float(np.median([norm.max() for norm in finite]))
    if lowest < floor:
        axes.set_ylim(bottom=floor)


def _positive(norm: np.ndarray) -> np.ndarray:
    return np.where(norm > 0, finite_or_gap(norm), np.nan)
