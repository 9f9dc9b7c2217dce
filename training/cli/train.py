"""`gradkeeper train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkeeper.training.cli import options
from gradkeeper.training.cli.support import console, loading
from gradkeeper.training.experiment.run_directory import RunDirectory

if TYPE_CHECKING:
    from gradkeeper.training.experiment.experiment import Experiment
    from gradkeeper.training.experiment.result import Result


@options.takes(
    options.MODEL,
    *options.setting_options(),
    options.RUN_DIR,
    options.OVERWRITE,
    options.RESUME,
    options.ALLOW_CHANGED_DATA,
)
def train(
    *,
    run_dir: Path | None,
    overwrite: bool,
    resume: bool,
    allow_changed_data: bool,
    **given: Any,
) -> None:
    """Train MODEL on a task with the gradient monitor, and write a run directory."""
    settings = options.settings_of(given)
    _require_enough(settings, run_dir, resume)
    if allow_changed_data and not resume:
        raise ValueError(
            "`--allow-changed-data` is an option of `--resume`. Received: resume=False"
        )
    if run_dir is not None:
        RunDirectory(run_dir).check(overwrite=overwrite, resume=resume)
    with loading():
        from gradkeeper.training.experiment.experiment import Experiment
    places: dict[str, Any] = {
        "run_dir": run_dir,
        "overwrite": overwrite,
        "resume": resume,
        "allow_changed_data": allow_changed_data,
    }
    if run_dir is not None and resume:
        _run(Experiment.from_config(run_dir, **settings, **places))
    else:
        _run(Experiment(**settings, **places))


def _require_enough(settings: dict[str, Any], run_dir: Path | None, resume: bool) -> None:
    if resume and run_dir is None:
        raise ValueError("`--resume` needs the run's `--run-dir`. Received: run_dir=None")
    if not resume and "model" not in settings:
        raise ValueError(
            "A model is missing; `gradkeeper list` shows all. It can only be omitted with "
            "`--resume`. Received: model=None"
        )
    if not resume:
        options.require_task(settings)


def _run(experiment: "Experiment") -> None:
    try:
        result = experiment.run()
    except KeyboardInterrupt:
        console.print(
            f"\nThe run up to here is saved in {experiment.run_dir}. Continue it with: "
            f"gradkeeper train --run-dir {experiment.run_dir} --resume",
            soft_wrap=True,
            markup=False,
        )
        raise
    _print_result(result)


def _print_result(result: "Result") -> None:
    from gradkeeper.training.comparison.comparison import Comparison

    comparison = Comparison("", result.run_dir)
    config = result.config
    shown = "".join(f", {name} {value}" for name, value in config["task_options"].items())
    comparison.add(f"{config['task']}{shown}", config["model"], result)
    console.print()
    console.print(comparison.table())
    if result.baseline is not None:
        console.print(f"Baseline: {result.baseline_label}.", soft_wrap=True, markup=False)
    console.print(f"Report: {result.run_dir / 'report.html'}", soft_wrap=True, markup=False)
