"""A comparison as one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkeeper.callbacks.page import write_page
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import HEADINGS, cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison_report(
    path: Path,
    title: str,
    groups: Mapping[str, Mapping[str, Result]],
    figures: "Mapping[str, Figure]",
) -> None:
    """Writes the page: the table of runs, pictures, and every run's findings with advice.

    Args:
        path: the page's file; links to the runs' own reports are relative to its folder.
        title: the page's heading.
        groups: per group its runs by label.
        figures: pictures by caption.
    """
    rows = {
        group: [_row(label, result, path.parent) for label, result in runs.items()]
        for group, runs in groups.items()
    }
    write_page(
        path,
        "gradkeeper.training",
        "comparison.html.j2",
        title=title,
        headings=HEADINGS,
        groups=rows,
        pictures=figures,
    )


def _row(label: str, result: Result, folder: Path) -> dict[str, Any]:
    return {
        "label": label,
        "cells": cells(result),
        "beats": result.beats_baseline,
        "findings": result.findings,
        "report": (result.run_dir.relative_to(folder) / "report.html").as_posix(),
    }
