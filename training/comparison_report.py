"""HTML page of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkeeper.callbacks.reporting.report import write_page
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import HALF_LIFE, cells, headings, number, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison_report(
    path: Path,
    title: str,
    groups: Mapping[str, Mapping[str, Result]],
    figures: "Mapping[str, Figure]",
) -> None:
    """Write the page: the table of runs, their settings, pictures, and findings with advice.

    Args:
        path: the HTML file; links to the runs' reports are relative to its folder.
        title: heading of the page.
        groups: for each group, its runs by label.
        figures: pictures by caption.
    """
    names = headings(result for runs in groups.values() for result in runs.values())
    rows = {
        group: [_row(label, result, names, path.parent) for label, result in runs.items()]
        for group, runs in groups.items()
    }
    write_page(
        path,
        "gradkeeper.training",
        "comparison.html.j2",
        title=title,
        headings=["run", *names],
        has_half_life=HALF_LIFE in names,
        groups=rows,
        pictures=figures,
        baselines=_baselines(groups),
        settings=[
            {"run": _name(label, group, groups), **settings(result.config)}
            for group, runs in groups.items()
            for label, result in runs.items()
        ],
        quiet=[
            _name(label, group, groups)
            for group, runs in groups.items()
            for label, result in runs.items()
            if not result.findings
        ],
    )


def _name(label: str, group: str, groups: Mapping[str, Mapping[str, Result]]) -> str:
    return f"{label} ({group})" if len(groups) > 1 else label


def _baselines(groups: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Return the distinct baselines of the runs, each with its description."""
    results = [result for runs in groups.values() for result in runs.values()]
    return list(
        dict.fromkeys(
            f"{number(result.baseline)} ({result.baseline_label})"
            for result in results
            if result.baseline is not None
        )
    )


def _row(label: str, result: Result, names: list[str], folder: Path) -> dict[str, Any]:
    of_run = cells(result)
    return {
        "label": label,
        "cells": [of_run[name] for name in names],
        "beats": result.beats_baseline,
        "findings": result.findings,
        "report": (result.run_dir.relative_to(folder) / "report.html").as_posix(),
    }
