"""Training several models on one task."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradkeeper.training.comparison import Comparison
from gradkeeper.training.experiment import Experiment
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import clipping
from gradkeeper.training.run_directory import (
    RunDirectory,
    make_directory,
    next_run_directory,
    require_vacant,
    write_json,
)

MARKER = "comparison.json"
CLIPPINGS: tuple[Mapping[str, float], ...] = ({}, {"global_clipnorm": 1.0})


def compare(
    models: Sequence[str],
    task: str = "adding",
    *,
    clippings: Sequence[Mapping[str, float]] = CLIPPINGS,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    verbose: int = 1,
    **options: Any,
) -> Comparison:
    """Trains every model with every way to clip, all else equal.

    Args:
        models: names of `zoo.list_models()`.
        task: a name of `list_tasks()`.
        clippings: each a clip argument of `make_optimizer` with its value, or empty for none.
        run_dir: the folder; the next free `runs/compare-<task>-<number>` by default.
        overwrite: delete the comparison that the folder holds.
        verbose: 1 to show progress, 0 to keep quiet.
        **options: further arguments of `Experiment`, for every run.

    Raises:
        ValueError: if no model is named or one twice; on bad arguments as in `Experiment`.
        KeyboardInterrupt: when interrupted, after what was trained has been saved.
    """
    if not models or len(set(models)) < len(models):
        raise ValueError(f"Name at least one model, each once. Received: models={list(models)!r}")
    experiments = {
        f"clipping: {clipping(each)}": {
            model: {"model": model, "task": task, **options, **each} for model in models
        }
        for each in clippings
    }
    folder = next_run_directory(f"compare-{task}") if run_dir is None else Path(run_dir)
    title = f"{', '.join(models)} on {task}"
    return run_comparison(title, experiments, folder, overwrite=overwrite, verbose=verbose)


def run_comparison(
    title: str,
    experiments: Mapping[str, Mapping[str, Mapping[str, Any]]],
    run_dir: Path,
    *,
    marker: str = MARKER,
    overwrite: bool = False,
    verbose: int = 1,
) -> Comparison:
    """Runs experiments one after the other into a folder.

    The table, the picture and the page are written at the end, also when interrupted.

    Args:
        title: of the comparison.
        experiments: per group its experiments by label, each as arguments of `Experiment`.
        run_dir: the folder.
        marker: the file by which the folder is known as one that may be overwritten.
        overwrite: delete the comparison that the folder holds.
        verbose: 1 to show progress, 0 to keep quiet.
    """
    require_vacant(run_dir, marker=marker, overwrite=overwrite)
    waiting = []
    for group, runs in experiments.items():
        for label, arguments in runs.items():
            name = label if len(experiments) == 1 else f"{label} ({group})"
            place = run_dir / re.sub(r"[^\w.=]+", "-", name).strip("-")
            waiting.append((group, label, name, Experiment(**arguments, run_dir=place)))
    make_directory(run_dir, marker=marker, overwrite=overwrite)
    write_json(run_dir / marker, {"title": title})
    comparison = Comparison(title, run_dir)
    try:
        for group, label, name, experiment in waiting:
            try:
                experiment.run(verbose=verbose, title=name)
            finally:
                if RunDirectory(experiment.run_dir).config.is_file():
                    comparison.add(group, label, Result.load(experiment.run_dir))
    finally:
        comparison.save()
    return comparison
