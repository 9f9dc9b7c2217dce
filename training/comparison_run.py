"""Training several models on one task."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradkeeper.callbacks.workers import Worker
from gradkeeper.training.build import build_model
from gradkeeper.training.comparison import Comparison
from gradkeeper.training.data_files import PATH_OPTIONS
from gradkeeper.training.experiment import Experiment
from gradkeeper.training.result import Result
from gradkeeper.training.result_text import CLIPS, clipping
from gradkeeper.training.run_directory import (
    RunDirectory,
    make_directory,
    next_run_directory,
    require_vacant,
    write_json,
)
from gradkeeper.training.tasks import Task, load_task
from gradkeeper.training.variants import Models, variants

MARKER = "comparison.json"
CLIPPINGS: tuple[Mapping[str, float], ...] = ({}, {"global_clipnorm": 1.0})


def compare(
    models: Models,
    task: str = "adding",
    *,
    clippings: Sequence[Mapping[str, float]] | None = None,
    name: str | None = None,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    verbose: int = 1,
    **options: Any,
) -> Comparison:
    """Trains every model with every way to clip, all else equal.

        compare(["lstm", "gru"], "adding", task_options={"length": 100})
        compare({
            "plain": {"model": "simple_rnn"},
            "ReLU": {"model": "simple_rnn", "model_options": {"activation": "relu"}},
        })
        compare(REMEDIES, "copying", flow=True)

    Args:
        models: names of `zoo.list_models()`; or variants by label, each `{"model": name}` and
            further arguments of `Experiment`, which take the place of those in `options`.
        task: a name of `list_tasks()`.
        clippings: each a clip argument of `make_optimizer` with its value, or empty for none.
            None: without clipping and with global_clipnorm=1; where a variant has a clip
            argument of its own, each variant once.
        name: of the models together, for the title; their labels by default.
        run_dir: the folder; the next free `runs/compare-<task>-<number>` by default.
        overwrite: delete the comparison that the folder holds.
        verbose: 1 to show progress, 0 to keep quiet.
        **options: further arguments of `Experiment`, for every run.

    Raises:
        ValueError: if no model is named or one twice; if variants clip by themselves and
            `clippings` are given; on bad arguments as in `Experiment`.
        TypeError: on options that a model does not have.
        KeyboardInterrupt: when interrupted, after what was trained has been saved.
    """
    members = variants(models)
    title = f"{name or ', '.join(members)} on {task}"
    experiments = {
        group: {
            label: {"task": task, **options, **member, **clip} for label, member in members.items()
        }
        for group, clip in _groups(title, members, clippings).items()
    }
    folder = next_run_directory(f"compare-{task}") if run_dir is None else Path(run_dir)
    return run_comparison(title, experiments, folder, overwrite=overwrite, verbose=verbose)


def _groups(
    title: str,
    members: Mapping[str, Mapping[str, Any]],
    clippings: Sequence[Mapping[str, float]] | None,
) -> dict[str, Mapping[str, float]]:
    """The ways to clip by heading; one that adds nothing where variants clip by themselves."""
    clipped = [
        label
        for label, member in members.items()
        if any(member.get(clip) is not None for clip in CLIPS)
    ]
    if not clipped:
        chosen = CLIPPINGS if clippings is None else clippings
        return {f"clipping: {clipping(each)}": each for each in chosen}
    if clippings is not None:
        raise ValueError(
            "Variants with a clip argument of their own cannot be clipped in further ways: leave "
            f"out one or the other. Received: clippings={list(clippings)!r}, and clip arguments "
            f"of {', '.join(map(repr, clipped))}"
        )
    return {title: {}}


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
    _require_sound([experiment for *_, experiment in waiting])
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


def _require_sound(experiments: Sequence[Experiment]) -> None:
    """Refuses what would fail only after others have been trained."""
    places = [experiment.run_dir.name.lower() for experiment in experiments]
    shared = sorted({place for place in places if places.count(place) > 1})
    if shared:
        raise ValueError(
            "Labels must differ in letters, digits, underscores, points or equals signs, as "
            f"folders are named after them. Received: more than one for {', '.join(shared)}"
        )
    if any(Worker.of(experiment.strategy).count > 1 for experiment in experiments):
        raise ValueError(
            "A comparison trains on one machine; to spread each of its models over several, train "
            "them one by one. Received: strategy='multi_worker'"
        )
    read: list[dict[str, Any]] = []
    for config in (experiment.config for experiment in experiments):
        options = config["task_options"]
        if config["model_options"]:
            build_model(config, _task_of(config), 1)
        elif PATH_OPTIONS & set(options) and options not in read:
            read.append(options)
            _task_of(config)


def _task_of(config: Mapping[str, Any]) -> Task:
    settings = {"data_dir": config["data_dir"], "seed": config["seed"]}
    return load_task(config["task"], **settings, **config["task_options"])
