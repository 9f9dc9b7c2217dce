"""Training of several models on one task."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradkeeper.callbacks._workers import Worker
from gradkeeper.training.comparison.comparison import Comparison
from gradkeeper.training.comparison.model_variants import Models, variants
from gradkeeper.training.experiment.config import CLIPS, NO_RECIPE
from gradkeeper.training.experiment.experiment import Experiment, build_model, task_of
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import (
    RunDirectory,
    make_directory,
    next_run_directory,
    require_vacant,
    write_json,
)
from gradkeeper.training.reporting.result_text import clipping
from gradkeeper.training.tasks import Task

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
    """Train every model with every kind of clipping; all other settings are equal.

    No recipe of the models is used.

        compare(["lstm", "gru"], "adding", task_options={"length": 100})
        compare({
            "plain": {"model": "simple_rnn"},
            "ReLU": {"model": "simple_rnn", "model_options": {"activation": "relu"}},
        })
        compare(REMEDIES, "copying", flow=True)

    Args:
        models: names of `zoo.list_models()`; or variants by label, each `{"model": name}` with
            further arguments of `Experiment`, which override those in `options`.
        task: a name of `list_tasks()`.
        clippings: each one a clip argument of `make_optimizer` with its value, or empty for no
            clipping. None: without clipping and with global_clipnorm=1; if any variant has a
            clip argument, each variant is trained once.
        name: name of the models for the title; by default their labels.
        run_dir: the folder; by default the next free `runs/compare-<task>-<number>`.
        overwrite: delete an existing comparison in the folder.
        verbose: 1 to show progress, 0 for no output.
        **options: further arguments of `Experiment`, for every run.

    Raises:
        ValueError: if no model is named, or a model is named twice; if `clippings` is given and
            a variant has a clip argument; if a `recipe` is given; for invalid arguments as in
            `Experiment`.
        TypeError: for options that a model does not have.
        KeyboardInterrupt: if interrupted, after saving the runs trained so far.
    """
    members = variants(models)
    for arguments in (options, *members.values()):
        if arguments.get("recipe", NO_RECIPE) != NO_RECIPE:
            raise ValueError(
                "`compare` trains all models with equal settings, so that it takes no `recipe`. "
                f"Use `Experiment` for a recipe. Received: recipe={arguments['recipe']!r}"
            )
    title = f"{name or ', '.join(members)} on {task}"
    experiments = {
        group: {
            label: {"task": task, "recipe": NO_RECIPE, **options, **member, **clip}
            for label, member in members.items()
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
    """Return the clip arguments by heading; one empty group if a variant has a clip argument."""
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
            "`clippings` cannot be combined with variants that have a clip argument: remove one "
            f"of them. Received: clippings={list(clippings)!r}, and clip arguments of "
            f"{', '.join(map(repr, clipped))}"
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
    """Run experiments one after the other in a folder.

    The table, the picture and the page are written at the end, also after an interruption.

    Args:
        title: title of the comparison.
        experiments: for each group, the arguments of `Experiment` by label.
        run_dir: the folder.
        marker: name of the file that marks the folder as one that may be overwritten.
        overwrite: delete an existing comparison in the folder.
        verbose: 1 to show progress, 0 for no output.
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
    """Check all experiments before the first is trained, so that no late error wastes training."""
    places = [experiment.run_dir.name.lower() for experiment in experiments]
    shared = sorted({place for place in places if places.count(place) > 1})
    if shared:
        raise ValueError(
            "Labels must differ in letters, digits, underscores, points or equals signs, because "
            f"they name the run directories. Received: duplicate names {', '.join(shared)}"
        )
    if any(Worker.of(experiment.strategy).count > 1 for experiment in experiments):
        raise ValueError(
            "A comparison runs on one machine. To use several workers, train each model with "
            "`Experiment`. Received: strategy='multi_worker'"
        )
    tasks: dict[str, Task] = {}
    built = set()
    for config in (experiment.config for experiment in experiments):
        of_task = repr((config.task, config.task_options, config.seed, config.data_dir))
        model = of_task, config.model, config.units, config.num_layers, repr(config.model_options)
        if model in built:
            continue
        built.add(model)
        if of_task not in tasks:
            tasks[of_task] = task_of(config)
        build_model(config, tasks[of_task], 1)
