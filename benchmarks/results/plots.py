"""Plots that several tables share. Figures do not use pyplot."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.measurement import Measurement

MEASURED, PUBLISHED, LINE = "#00796b", "#d84315", "#66757f"


def new_figure(width: float = 8.0, height: float = 4.0) -> Figure:
    """Create an empty figure."""
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def select(measurements: Iterable[Measurement], quantity: str) -> list[Measurement]:
    """Return the measurements of one quantity."""
    return [each for each in measurements if each.quantity == quantity]


def values(measurements: Iterable[Measurement]) -> np.ndarray:
    """Return the values as an array, NaN for a missing value."""
    return np.array([math.nan if each.value is None else each.value for each in measurements])


def plot_with_published(
    measurements: Sequence[Measurement],
    quantity: str,
    label: str,
    *,
    log: bool = False,
    line: tuple[float, str] | None = None,
) -> Figure:
    """Plot the measured and the published numbers of one quantity as dots, one row each.

    Args:
        measurements: measurements, also of other quantities.
        quantity: the quantity to plot.
        label: label of the axis.
        log: use a logarithmic axis.
        line: a reference value and its description.
    """
    chosen = select(measurements, quantity)
    figure = new_figure(8, 1.2 + 0.38 * len(chosen))
    axes = figure.subplots()
    rows = np.arange(len(chosen))[::-1]
    axes.scatter(values(chosen), rows, s=60, color=MEASURED, label="measured", zorder=3)
    published = [math.nan if each.published is None else each.published for each in chosen]
    if not np.isnan(published).all():
        axes.scatter(
            published,
            rows,
            s=80,
            facecolors="none",
            edgecolors=PUBLISHED,
            linewidths=1.6,
            label="published",
            zorder=4,
        )
    if line is not None:
        axes.axvline(line[0], color=LINE, linestyle="--", linewidth=1, label=line[1])
    axes.set_yticks(rows, [" ".join(filter(None, each.row)) for each in chosen])
    axes.set(xlabel=label, ylim=(-0.6, len(chosen) - 0.4))
    if log:
        axes.set_xscale("log")
    style_axes(axes)
    return figure


def style_axes(axes: Axes, title: str = "") -> None:
    """Add grid and legend; remove the upper and right border."""
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False)
