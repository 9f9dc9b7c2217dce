"""Settings for the production of a table."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings that all tables share.

    Attributes:
        runs: the folder of the table's run directories; finished runs in it are reused, and
            interrupted ones resumed.
        quick: use tiny sizes, for seconds instead of hours; the numbers mean nothing.
        collect: train nothing and use the existing runs, including unfinished ones.
        data_dir: data folder of tensorflow-datasets; None for its default.
        console: the console for progress messages; None for no output.
    """

    runs: Path
    quick: bool = False
    collect: bool = False
    data_dir: Path | None = None
    console: Console | None = None

    def say(self, text: str) -> None:
        """Print a progress message."""
        if self.console is not None:
            self.console.print(text, markup=False, soft_wrap=True)
