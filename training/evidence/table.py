"""What a table is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradkeeper.training.evidence.cell import Cell
from gradkeeper.training.evidence.setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        title: its heading.
        text: what is measured, how, and what the literature has; Markdown.
        measure: makes the cells, one after the other.
        draw: makes the picture of them.
    """

    title: str
    text: str
    measure: Callable[[Setup], Iterable[Cell]]
    draw: "Callable[[Sequence[Cell]], Figure]"
