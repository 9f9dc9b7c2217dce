"""A comparison as one self-contained HTML page."""

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from gradkeeper import __version__
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
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = files("gradkeeper.training").joinpath("comparison.html.j2")
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        title=title,
        version=__version__,
        headings=HEADINGS,
        groups={
            group: [_row(label, result, path.parent) for label, result in runs.items()]
            for group, runs in groups.items()
        },
        pictures={caption: _embedded(figure) for caption, figure in figures.items()},
    )
    path.write_text(page, encoding="utf-8")


def _row(label: str, result: Result, folder: Path) -> dict[str, Any]:
    return {
        "label": label,
        "cells": cells(result),
        "beats": result.beats_baseline,
        "findings": result.findings,
        "report": (result.run_dir.relative_to(folder) / "report.html").as_posix(),
    }


def _embedded(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
