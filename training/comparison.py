"""Several runs side by side: a table, a picture, a page."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table

from gradkeeper.training.comparison_report import write_comparison_report
from gradkeeper.training.plots import plot_runs
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import HEADINGS, cells
from gradkeeper.training.run_directory import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Keeps the columns of the tables of all groups below each other.
_WIDTHS = (8, 8, 12, 7, 7, 7)


class Comparison:
    """Results of several runs, in groups.

    Args:
        title: of the picture, the table and the page.
        run_dir: the folder in which the runs' directories lie.
    """

    def __init__(self, title: str, run_dir: str | Path) -> None:
        self.title = title
        self.run_dir = Path(run_dir)
        self.groups: dict[str, dict[str, Result]] = {}

    def add(self, group: str, label: str, result: Result) -> None:
        """Adds a run; a group is a row of the picture and a section of the table."""
        self.groups.setdefault(group, {})[label] = result

    def __iter__(self) -> Iterator[tuple[str, str, Result]]:
        for group, runs in self.groups.items():
            for label, result in runs.items():
                yield group, label, result

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of every run."""
        return [
            {
                "group": group,
                "run": label,
                "final_loss": result.final_loss,
                "baseline": result.baseline,
                "largest_norm": result.largest_norm,
                "nonfinite_step": result.nonfinite_step,
                "clip_fraction": result.clip_fraction,
                "parameters": result.parameters,
                "seconds_per_step": result.time_per_step,
                "findings": len(result.findings),
                "status": result.status,
                "run_dir": str(result.run_dir),
            }
            for group, label, result in self
        ]

    def table(self) -> Group:
        """The numbers of every run for the terminal: green beats the baseline, red does not."""
        width = max((len(label) for _, label, _ in self), default=0)
        return Group(*(_table(group, runs, width) for group, runs in self.groups.items()))

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Losses and gradient norms side by side; saved as well if a path is given."""
        figure = plot_runs(self.groups, self.title)
        if path is not None:
            figure.savefig(path)
        return figure

    def save(self, figures: "Mapping[str, Figure] | None" = None) -> None:
        """Writes `comparison.csv`, `comparison.png` and `report.html` into the folder.

        Nothing is written where there is no run.

        Args:
            figures: further pictures for the page, by caption.
        """
        text = io.StringIO()
        rows = self.rows()
        if not rows:
            return
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.run_dir / "comparison.csv", text.getvalue())
        picture = self.plot(self.run_dir / "comparison.png")
        write_comparison_report(
            self.run_dir / "report.html",
            self.title,
            self.groups,
            {"Loss and gradient norm": picture, **(figures or {})},
        )


def _table(group: str, runs: Mapping[str, Result], width: int) -> Table:
    table = Table(
        title=group,
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        pad_edge=False,
    )
    table.add_column("run", min_width=width)
    for heading, least in zip(HEADINGS[1:-1], _WIDTHS, strict=True):
        table.add_column(heading, justify="right", min_width=least)
    table.add_column("findings", justify="right")
    for label, result in runs.items():
        loss, *others, _ = cells(result)
        colour = "green" if result.beats_baseline else "red"
        table.add_row(label, f"[{colour}]{loss}[/]", *others, str(len(result.findings)))
    return table
