"""Definition of a table of results."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.cell import Cell
from results.setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        title: heading of the table.
        text: description of the measurement and of the published results; Markdown.
        measure: function that yields the cells one after the other.
        draw: function that plots the cells.
    """

    title: str
    text: str
    measure: Callable[[Setup], Iterable[Cell]]
    draw: "Callable[[Sequence[Cell]], Figure]"
