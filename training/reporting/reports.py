"""HTML pages and pictures of a run and of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gradkeeper.callbacks.reporting.plots import plot_history
from gradkeeper.callbacks.reporting.report import write_page, write_report
from gradkeeper.callbacks.temporal_gradient_flow import plot_flows
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import RunDirectory
from gradkeeper.training.reporting.plots import plot_loss
from gradkeeper.training.reporting.result_text import (
    HALF_LIFE,
    cells,
    clipping,
    headings,
    listed,
    number,
    settings,
    time_per_step,
)


def write_run_report(result: Result) -> RunDirectory:
    """Write `report.html` and the pictures to the run's directory."""
    directory = RunDirectory(result.run_dir)
    plot_loss(result).savefig(directory.loss_picture)
    plot_history(result.history, result.findings).savefig(directory.gradient_picture)
    write_report(
        directory.report,
        result.history,
        result.findings,
        title=f"{result.config['model']} on {result.config['task']}",
        facts=_facts(result),
        figures={"Loss": directory.loss_picture, **_flow_pictures(result, directory)},
    )
    return directory


def _flow_pictures(result: Result, directory: RunDirectory) -> dict[str, Path]:
    """Save the pictures of gradients through time; return their paths by caption."""
    if not result.flows:
        return {}
    last = max(result.flows)
    plot_flows(result.flows).savefig(directory.flow_picture)
    result.flows[last].plot().savefig(directory.flow_end_picture)
    return {
        "Gradient through time, before training and after epochs": directory.flow_picture,
        f"Gradient through time after {last} epoch{'' if last == 1 else 's'}": (
            directory.flow_end_picture
        ),
    }


def _facts(result: Result) -> dict[str, str]:
    config = result.config
    reach = {} if result.reach is None else {"Gradient through time": str(result.reach)}
    loss = number(result.final_loss)
    if result.baseline is not None:
        loss += f" (baseline {number(result.baseline)}: {result.baseline_label})"
    return {
        "Status": f"{result.status}, {len(result.metrics.get('epoch', []))} epochs",
        "Validation loss": "no epoch was finished" if not result.metrics else loss,
        "Model": (
            f"{config['num_layers']} × {config['units']} units{listed(config['model_options'])}"
        ),
        "Parameters": f"{result.parameters:,}",
        "Task": f"{config['task']}{listed(config['task_options'])}",
        "Optimizer": f"{config['optimizer']}, learning rate {config['learning_rate']:g}"
        + (f", {config['schedule']} schedule" if config["schedule"] else "")
        + listed(config["optimizer_options"]),
        "Clipping": clipping(config),
        **({"Recipe": _recipe(config)} if config.get("sources") else {}),
        "Batch size, seed": f"{config['batch_size']}, {config['seed']}",
        "Time per train step": time_per_step(result),
        **reach,
    }


def _recipe(config: Mapping[str, Any]) -> str:
    """List the settings that come from the recipe, by source."""
    by_source: dict[str, list[str]] = {}
    for name, source in config["sources"].items():
        by_source.setdefault(source, []).append(name)
    return "; ".join(f"{', '.join(names)}: {source}" for source, names in by_source.items())


def write_comparison_report(
    path: Path,
    title: str,
    groups: Mapping[str, Mapping[str, Result]],
    figures: Mapping[str, Figure],
) -> None:
    """Write the page: the table of runs, their settings, pictures, and findings with advice.

    Args:
        path: the HTML file; links to the runs' reports are relative to its folder.
        title: heading of the page.
        groups: for each group, its runs by label.
        figures: pictures by caption.
    """
    named = {
        f"{label} ({group})" if len(groups) > 1 else label: result
        for group, runs in groups.items()
        for label, result in runs.items()
    }
    names = headings(named.values())
    rows = {
        group: [_row(label, result, names, path.parent) for label, result in runs.items()]
        for group, runs in groups.items()
    }
    baselines = (
        f"{number(result.baseline)} ({result.baseline_label})"
        for result in named.values()
        if result.baseline is not None
    )
    write_page(
        path,
        "gradkeeper.training.reporting",
        "comparison.html.j2",
        title=title,
        headings=["run", *names],
        has_half_life=HALF_LIFE in names,
        groups=rows,
        pictures=figures,
        baselines=list(dict.fromkeys(baselines)),
        settings=[{"run": name, **settings(result.config)} for name, result in named.items()],
        quiet=[name for name, result in named.items() if not result.findings],
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
