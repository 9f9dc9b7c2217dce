"""Results of several runs as a table, pictures and an HTML page."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import write_text
from gradkeeper.training.reporting.plots import plot_runs
from gradkeeper.training.reporting.reach_plot import plot_reach
from gradkeeper.training.reporting.reports import write_comparison_report
from gradkeeper.training.reporting.result_text import BASELINE, LOSS, TIME, cells, headings, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Align the columns of all groups, and keep every table within 80 characters.
_RUN_WIDTH = 18
_TEXT_WIDTH = 80
_WIDTHS = {LOSS: 10, "max norm": 8, "clipped": 7, "weights": 7, TIME: 8}
_HEADINGS = {LOSS: "validation\nloss", TIME: "time per\nstep"}


class Comparison:
    """Results of several runs, in groups.

    Args:
        title: title of the picture, the table and the page.
        run_dir: the folder that contains the run directories.
    """

    def __init__(self, title: str, run_dir: str | Path) -> None:
        self.title = title
        self.run_dir = Path(run_dir)
        self.groups: dict[str, dict[str, Result]] = {}

    def add(self, group: str, label: str, result: Result) -> None:
        """Add a run. Each group is a row of the picture and a section of the table."""
        self.groups.setdefault(group, {})[label] = result

    def __iter__(self) -> Iterator[tuple[str, str, Result]]:
        for group, runs in self.groups.items():
            for label, result in runs.items():
                yield group, label, result

    def __str__(self) -> str:
        """Return the table as text, 80 columns wide; empty without runs."""
        text = io.StringIO()
        Console(file=text, width=_TEXT_WIDTH, color_system=None).print(self.table())
        return text.getvalue().rstrip()

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers of every run."""
        return [
            {
                "group": group,
                "run": label,
                "final_loss": result.final_loss,
                "baseline": result.baseline,
                "largest_norm": result.largest_norm,
                "nonfinite_step": result.nonfinite_step,
                "clip_fraction": result.clip_fraction,
                "half_life": None if result.reach is None else result.reach.half_life,
                "parameters": result.parameters,
                "seconds_per_step": result.time_per_step,
                "findings": len(result.findings),
                "status": result.status,
                "run_dir": str(result.run_dir),
            }
            for group, label, result in self
        ]

    def table(self) -> Group:
        """Return the table for the terminal; a loss is green if it beats the baseline, else red."""
        width = max((len(label) for _, label, _ in self), default=0)
        names = headings(result for _, _, result in self)
        parts: list[Text | Table] = []
        for group, runs in self.groups.items():
            baseline = next(iter(runs.values())).baseline
            reached = "" if baseline is None else f" (baseline {number(baseline)})"
            parts += [Text(f"{group}{reached}", "bold"), _table(runs, width, names)]
        return Group(*parts)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Plot losses and gradient norms side by side; save the figure if `path` is given."""
        figure = plot_runs(self.groups, self.title)
        if path is not None:
            figure.savefig(path)
        return figure

    @property
    def files(self) -> list[Path]:
        """Existing files that `save` has written."""
        names = ("comparison.csv", "comparison.png", "flow.png", "report.html")
        return [path for name in names if (path := self.run_dir / name).is_file()]

    def plot_flow(self, path: str | Path | None = None) -> "Figure":
        """Plot losses and how far back in time gradients reach; save the figure to `path`."""
        figure = plot_reach(self.groups, self.title)
        if path is not None:
            figure.savefig(path)
        return figure

    def save(self, figures: "Mapping[str, Figure] | None" = None) -> None:
        """Write `comparison.csv`, `comparison.png` and `report.html` to the folder.

        Also write `flow.png` if any run recorded its gradients through time. Write nothing if
        there is no run.

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
        pictures = {"Loss and gradient norm": self.plot(self.run_dir / "comparison.png")}
        if any(result.flows for _, _, result in self):
            pictures["Loss and gradient reach"] = self.plot_flow(self.run_dir / "flow.png")
        write_comparison_report(
            self.run_dir / "report.html",
            self.title,
            self.groups,
            {**pictures, **(figures or {})},
        )


def _table(runs: Mapping[str, Result], width: int, names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("run", min_width=min(width, _RUN_WIDTH), overflow="fold")
    names = [name for name in names if name != BASELINE]
    for name in names:
        table.add_column(_HEADINGS.get(name, name), justify="right", min_width=_WIDTHS.get(name))
    for label, result in runs.items():
        colour = "green" if result.beats_baseline else "red"
        shown = {**cells(result), "findings": str(len(result.findings))}
        texts = [Text(shown[name], colour if name == LOSS else "") for name in names]
        table.add_row(Text(label), *texts)
    return table
