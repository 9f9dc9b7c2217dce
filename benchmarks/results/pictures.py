"""Pictures that several tables share. Figures do not use pyplot."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.cell import Cell

OURS, PUBLISHED, OTHER, LINE = "#00796b", "#d84315", "#9bb8d3", "#66757f"


def figure(width: float = 8.0, height: float = 4.0) -> Figure:
    """Create an empty figure."""
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def of_quantity(cells: Iterable[Cell], quantity: str) -> list[Cell]:
    """Return the cells of one quantity."""
    return [cell for cell in cells if cell.quantity == quantity]


def values(cells: Iterable[Cell]) -> np.ndarray:
    """Return the cells' values as an array, NaN for a missing value."""
    return np.array([math.nan if cell.value is None else cell.value for cell in cells])


def beside_published(
    cells: Sequence[Cell], label: str, *, log: bool = False, line: tuple[float, str] | None = None
) -> Figure:
    """Plot measured and published numbers as dots, one row per cell.

    Args:
        cells: cells of one quantity.
        label: label of the axis.
        log: use a logarithmic axis.
        line: a reference value and its description.
    """
    drawn = figure(8, 1.2 + 0.38 * len(cells))
    axes = drawn.subplots()
    places = np.arange(len(cells))[::-1]
    axes.scatter(values(cells), places, s=60, color=OURS, label="measured", zorder=3)
    known = [(cell.published, place) for cell, place in zip(cells, places, strict=True)]
    known = [each for each in known if each[0] is not None]
    if known:
        numbers, rows = zip(*known, strict=True)
        axes.scatter(
            numbers, rows, s=80, facecolors="none", edgecolors=PUBLISHED, linewidths=1.6,
            label="published", zorder=4,
        )  # fmt: skip
    if line is not None:
        axes.axvline(line[0], color=LINE, linestyle="--", linewidth=1, label=line[1])
    axes.set_yticks(places, [" ".join(filter(None, cell.row)) for cell in cells])
    axes.set(xlabel=label, ylim=(-0.6, len(cells) - 0.4))
    if log:
        axes.set_xscale("log")
    finish(axes)
    return drawn


def finish(axes: Axes, title: str = "") -> None:
    """Add grid and legend; remove the upper and right border."""
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False)
