"""Tables of results: their list, their definition, and the settings to produce them.

Importing this module does not import TensorFlow.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from results.measurement import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name: module with the table in its `TABLES`, and one-line description; in the order of the page.
TABLES = {
    "growth": ("growth", "gradient growth per step, against spectral radius and singular value"),
    "adding_600": ("bai_2018", "adding problem, 600 steps"),
    "copying_1000": ("bai_2018", "copying problem after 1,000 steps"),
    "jsb_chorales": ("bai_2018", "Bach's chorales, nats per frame"),
    "clipping": ("clipping", "clipping on and off, SimpleRNN on Bach's chorales"),
    "promises": ("promises", "what each entry's paper promises, with its recipe, three seeds"),
    "leaderboard": (
        "leaderboard",
        "all models with about 150,000 weights: adding over 200 steps and Shakespeare",
    ),
    "stability": (
        "stability",
        "largest learning rate of every model, without and with clipping",
    ),
}
from gradkeeper._arguments import choice


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Settings that all tables share.

    Attributes:
        runs: the folder of the table's run directories; finished runs in it are reused, and
            interrupted ones resumed.
        quick: use tiny sizes, for seconds instead of hours; the numbers mean nothing.
        collect: train nothing and use the existing runs, including unfinished ones.
        finished: file with the results of finished runs, see `FinishedRuns`; None for no file.
        data_dir: data folder of tensorflow-datasets; None for its default.
        console: the console for progress messages; None for no output.
    """

    runs: Path
    quick: bool = False
    collect: bool = False
    finished: Path | None = None
    data_dir: Path | None = None
    console: Console | None = None

    def print(self, text: str) -> None:
        """Print a progress message."""
        if self.console is not None:
            self.console.print(text, markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        title: heading of the table.
        text: description of the measurement and of the published results; Markdown.
        measure: function that yields the measurements one after the other.
        draw: function that plots the measurements.
    """

    title: str
    text: str
    measure: Callable[[BenchConfig], Iterable[Measurement]]
    draw: "Callable[[Sequence[Measurement]], Figure]"


def load_table(name: str) -> Table:
    """Return a table by name.

    Raises:
        ValueError: if the name is unknown.
    """
    choice("table", name, TABLES)
    module, _ = TABLES[name]
    table: Table = importlib.import_module(f"results.{module}").TABLES[name]
    return table
