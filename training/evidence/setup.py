"""How a table is made: in full or in small, where its runs are kept, whether it may train."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all tables are told.

    Attributes:
        runs: the folder of the table's run directories; what is finished there is not trained
            again, and what was interrupted is gone on with.
        quick: sizes for seconds instead of an hour; such numbers say nothing.
        collect: train nothing, and take the runs that are there, unfinished ones as well.
        data_dir: folder of tensorflow-datasets; None for its default.
        console: where progress is shown; None keeps quiet.
    """

    runs: Path
    quick: bool = False
    collect: bool = False
    data_dir: Path | None = None
    console: Console | None = None

    def say(self, text: str) -> None:
        """A line of progress."""
        if self.console is not None:
            self.console.print(text, markup=False, soft_wrap=True)
