"""Plots of gradients through time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gradkeeper.callbacks.flow.gradient_flow import GradientFlow, StateFlow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colour scale ends at this fraction of the largest norm.
_SPAN = 1e-12


def plot_flow(flow: GradientFlow) -> "Figure":
    """Plot the median and the 5th to 95th percentile of each state's gradient norm over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6 * len(flow)), layout="constrained")
    rows = figure.subplots(len(flow), 1, squeeze=False, sharex=True)[:, 0]
    for axes, state in zip(rows, flow, strict=True):
        _draw_lines(axes, state)
    rows[-1].set_xlabel("time step")
    return figure


def plot_flows(flows: Mapping[int, GradientFlow]) -> "Figure":
    """Plot, for each state, a heat map of time against epochs and the half-life over epochs."""
    from matplotlib.figure import Figure

    epochs = sorted(flows)
    names = [each.name for each in flows[epochs[-1]]]
    figure = Figure(figsize=(11, 2.8 * len(names)), layout="constrained")
    rows = figure.subplots(len(names), 2, squeeze=False, width_ratios=(3, 1))
    for (heat, line), name in zip(rows, names, strict=True):
        states = [flows[epoch][name] for epoch in epochs]
        _draw_heat(figure, heat, states, epochs)
        _draw_half_lives(line, states, epochs)
    for axes, label in zip(rows[-1], ("time step", "epochs"), strict=True):
        axes.set_xlabel(label)
    return figure


def _draw_lines(axes: "Axes", state: StateFlow) -> None:
    low, middle, high = (_positive(each) for each in state.percentiles((5, 50, 95)))
    time = np.arange(len(middle))
    axes.fill_between(time, low, high, alpha=0.25, label="5 to 95 % of examples")
    axes.plot(time, middle, label="median")
    axes.set_yscale("log")
    _mark_zeros(axes, state)
    axes.set_ylabel("norm of the gradient")
    axes.set_title(str(state), loc="left", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _mark_zeros(axes: "Axes", state: StateFlow) -> None:
    """Mark time steps with a median of zero at the lower edge, since the axis is logarithmic."""
    (zero,) = np.nonzero(state.percentiles((50,))[0] == 0)
    if len(zero):
        axes.plot(
            zero, np.full(len(zero), 0.02), "v", ms=5, color="#555555", label="median is zero",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _draw_heat(figure: "Figure", axes: "Axes", states: list[StateFlow], epochs: list[int]) -> None:
    from matplotlib.colors import LogNorm

    table = np.stack([_positive(each.norm) for each in states])
    known = table[np.isfinite(table)]
    highest = known.max(initial=1e-30)
    lowest = max(known.min(initial=highest), highest * _SPAN)
    colours = LogNorm(lowest, max(highest, lowest * 1.01))
    image = axes.imshow(
        np.maximum(table, lowest), aspect="auto", origin="lower", norm=colours, cmap="viridis",
        interpolation="nearest",
    )  # fmt: skip
    some = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 6)).round().astype(int))
    axes.set_yticks(some, [str(epochs[row]) for row in some])
    axes.set_ylabel("epochs")
    white = "" if len(known) == table.size else "; white: zero, masked or not finite"
    title = f"{states[-1].name}: norm of the gradient{white}"
    axes.set_title(title, loc="left", fontsize="medium")
    figure.colorbar(image, ax=axes)


def _draw_half_lives(axes: "Axes", states: list[StateFlow], epochs: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    lives = np.array([each.half_life for each in states])
    finite = np.isfinite(lives)
    axes.plot(epochs, np.where(finite, lives, np.nan), marker="o", markersize=3)
    axes.set_title("half-life, steps" if finite.any() else "does not decrease", fontsize="medium")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if not finite.any():
        axes.set_yticks([])
    elif lives[finite].max() > 20 * lives[finite].min():
        axes.set_yscale("log")


def _positive(norms: np.ndarray) -> np.ndarray:
    """Replace zero and non-finite norms by NaN, for a logarithmic scale."""
    return np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
