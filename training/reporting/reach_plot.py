"""Picture of several runs' losses and of how far back in time their gradients reach."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradkeeper.callbacks.flow import StateFlow
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.reporting.plots import (
    draw_baseline,
    draw_loss,
    finite_or_gap,
    limit_losses,
    run_colours,
)
from gradkeeper.training.reporting.result_text import half_life

# A norm below a typical run's largest norm by more than this factor has vanished: cut it off.
_SPAN = 1e-12
# Use a logarithmic axis if a loss falls this far below the baseline.
_DEEP = 20.0
# With more runs than this, a legend inside a panel hides the curves.
_FEW = 6


def plot_reach(groups: Mapping[str, Mapping[str, Result]], title: str) -> Figure:
    """Plot the loss over train steps and ‖∂L/∂h_t‖ over time steps; a row per group.

    The gradient is that of the last record. If a run has a record from before the training, a
    panel in the middle shows it.

    Args:
        groups: for each row, its heading and its runs by label. A label has the same colour in
            every row; a run without records appears in the loss panel only.
        title: title of the picture.
    """
    results = [result for runs in groups.values() for result in runs.values()]
    columns = 3 if any(_before(result) for result in results) else 2
    size = (13 if columns == 2 else 16, 0.6 + 4.2 * len(groups))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    figure.suptitle(title, fontweight="bold")
    rows = figure.subplots(len(groups), columns, squeeze=False, sharex="col", sharey="col")
    colours = run_colours(groups)
    for panels, (heading, runs) in zip(rows, groups.items(), strict=True):
        _draw_losses(panels[0], runs, colours)
        _draw_ends(panels[-1], runs, colours)
        if columns == 3:
            _draw_beginnings(panels[1], runs, colours)
        _finish(panels, f"{heading}: " if len(groups) > 1 else "")
        _add_legends(panels, runs)
    _limit_losses(rows[0, 0], results)
    _limit_norms(list(rows[0, 1:]))
    return figure


def _before(result: Result) -> StateFlow | None:
    """Return the record before training of the state that the last panel shows."""
    if result.reach is None or 0 not in result.flows or len(result.flows) == 1:
        return None
    return result.flows[0][result.reach.name]


def _draw_losses(axes: Axes, runs: Mapping[str, Result], colours: Mapping[str, str]) -> None:
    axes.set(xlabel="train step", ylabel="validation loss")
    for label, result in runs.items():
        draw_loss(axes, label, result, colours[label])
    draw_baseline(axes, next(iter(runs.values())))


def _draw_beginnings(axes: Axes, runs: Mapping[str, Result], colours: Mapping[str, str]) -> None:
    axes.set(xlabel="time step t", ylabel="‖∂L/∂h_t‖")
    for label, result in runs.items():
        flow = _before(result)
        if flow is not None:
            _draw_norm(axes, flow, colours[label], label)


def _draw_ends(axes: Axes, runs: Mapping[str, Result], colours: Mapping[str, str]) -> None:
    axes.set(xlabel="time step t", ylabel="‖∂L/∂h_t‖")
    for label, result in runs.items():
        if result.reach is not None:
            finite = np.isfinite(_positive(result.reach.norm)).any()
            told = f": half-life {half_life(result)}" if finite else " (no finite gradient)"
            _draw_norm(axes, result.reach, colours[label], label + told)


def _draw_norm(axes: Axes, flow: StateFlow, colour: str, label: str) -> None:
    norm = _positive(flow.norm)
    axes.plot(np.arange(len(norm)), norm, color=colour, linewidth=1.6, label=label)


def _finish(panels: Sequence[Axes], prefix: str) -> None:
    shown = [f"{prefix}validation loss", "gradient reach at the end of the training"]
    shown[1:1] = ["gradient reach before the training"] * (len(panels) - 2)
    for axes, text in zip(panels, shown, strict=True):
        axes.set_title(text, fontsize="medium", loc="left")
        axes.grid(alpha=0.25)
    for axes in panels[1:]:
        if any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
            axes.set_yscale("log")


def _add_legends(panels: Sequence[Axes], runs: Mapping[str, Result]) -> None:
    """Add legends inside the panels; with many runs, one legend next to them."""
    first, last = panels[0], panels[-1]
    if len(runs) <= _FEW:
        for axes in (first, last):
            if axes.lines:
                axes.legend(loc="best", fontsize="small", framealpha=0.9)
        return
    handles, labels = first.get_legend_handles_labels()
    told = [f"{label}: half-life {half_life(result)}" for label, result in runs.items()]
    texts = [*told, *labels[len(runs) :]]
    last.legend(handles, texts, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _limit_losses(axes: Axes, results: Sequence[Result]) -> None:
    """Limit the loss axis; make it logarithmic if a loss is far below the baseline."""
    limit_losses(axes, results)
    losses = [_positive(np.asarray(result.metrics.get("val_loss", []))) for result in results]
    lowest = min((float(np.nanmin(each)) for each in losses if np.isfinite(each).any()), default=1)
    if results[0].baseline is not None and lowest < results[0].baseline / _DEEP:
        axes.set_yscale("log")
        axes.set_ylim(bottom=lowest / 1.5)


def _limit_norms(panels: Sequence[Axes]) -> None:
    """Give all panels the same axis; cut off vanished norms so that the others are visible."""
    norms = [np.asarray(line.get_ydata()) for axes in panels for line in axes.lines]
    finite = [norm[np.isfinite(norm)] for norm in norms if np.isfinite(norm).any()]
    if not finite:
        return
    limits = [axes.get_ylim() for axes in panels]
    floor = _SPAN * float(np.median([norm.max() for norm in finite]))
    cut = min(float(norm.min()) for norm in finite) < floor
    bottom = floor if cut else min(low for low, _ in limits)
    for axes in panels:
        axes.set_ylim(bottom, max(high for _, high in limits))


def _positive(norm: np.ndarray) -> np.ndarray:
    return np.where(norm > 0, finite_or_gap(norm), np.nan)
