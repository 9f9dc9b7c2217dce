"""`gradkeeper train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradkeeper.training.cli import options
from gradkeeper.training.cli.support import console, given, loading, pairs
from gradkeeper.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from gradkeeper.training.experiment import Experiment
    from gradkeeper.training.result import Result

Model = Annotated[
    str | None,
    typer.Argument(help="A model of the zoo; `gradkeeper list` names all.", show_default=False),
]


def train(
    model: Model = None,
    task: options.Task = None,
    length: options.Length = None,
    text: options.Text = None,
    csv: options.Csv = None,
    target: options.Target = None,
    window: options.Window = None,
    option: options.TaskOptions = None,
    data_dir: options.DataDir = None,
    units: options.Units = None,
    num_layers: options.NumLayers = None,
    model_option: options.ModelOptions = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    clipnorm: options.Clipnorm = None,
    global_clipnorm: options.GlobalClipnorm = None,
    clipvalue: options.Clipvalue = None,
    schedule: options.Schedule = None,
    optimizer_option: options.OptimizerOptions = None,
    batch_size: options.BatchSize = None,
    epochs: options.Epochs = None,
    steps_per_epoch: options.StepsPerEpoch = None,
    steps_per_execution: options.StepsPerExecution = None,
    jit_compile: options.JitCompile = None,
    strategy: options.Strategy = None,
    seed: options.Seed = None,
    flow: options.Flow = None,
    flow_regularizer: options.FlowRegularizer = None,
    run_dir: options.RunDir = None,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    allow_changed_data: options.AllowChangedData = False,
) -> None:
    """Train MODEL on a task with the gradient monitor, and write a run directory."""
    arguments = given(
        model=model,
        data_dir=data_dir,
        units=units,
        num_layers=num_layers,
        optimizer=optimizer,
        learning_rate=learning_rate,
        clipnorm=clipnorm,
        global_clipnorm=global_clipnorm,
        clipvalue=clipvalue,
        schedule=schedule,
        batch_size=batch_size,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
        strategy=strategy,
        seed=seed,
        flow=flow,
        flow_regularizer=flow_regularizer,
        **options.task_arguments(
            task=task,
            text=text,
            csv=csv,
            target=target,
            window=window,
            length=length,
            option=option,
        ),
        model_options=pairs("--model-option", model_option) or None,
        optimizer_options=pairs("--optimizer-option", optimizer_option) or None,
    )
    _require_enough(arguments, run_dir, resume)
    if run_dir is not None:
        RunDirectory(run_dir).check(overwrite=overwrite, resume=resume)
    with loading():
        from gradkeeper.training.experiment import Experiment
    places: dict[str, Any] = {
        "run_dir": run_dir,
        "overwrite": overwrite,
        "resume": resume,
        "allow_changed_data": allow_changed_data,
    }
    if run_dir is not None and "model" not in arguments:
        _run(Experiment.from_config(run_dir, **arguments, **places))
    else:
        _run(Experiment(**arguments, **places))


def _require_enough(arguments: dict[str, Any], run_dir: Path | None, resume: bool) -> None:
    if resume and run_dir is None:
        raise ValueError("`--resume` needs the run's `--run-dir`. Received: run_dir=None")
    if not resume and "model" not in arguments:
        raise ValueError(
            "A model is missing; `gradkeeper list` shows all. It can only be omitted with "
            "`--resume`. Received: model=None"
        )
    if not resume and "task" not in arguments:
        raise ValueError(
            "`--task` is missing; `gradkeeper list` shows all. For your own data, use `--text`, or "
            "`--csv` with `--target`. Received: task=None"
        )


def _run(experiment: "Experiment") -> None:
    try:
        result = experiment.run()
    except KeyboardInterrupt:
        console.print(
            f"\nThe run up to here is saved in {experiment.run_dir}. Continue it with: "
            f"gradkeeper train --run-dir {experiment.run_dir} --resume",
            soft_wrap=True,
        )
        raise
    _print_result(result)


def _print_result(result: "Result") -> None:
    from gradkeeper.training.comparison import Comparison

    comparison = Comparison("", result.run_dir)
    config = result.config
    options = "".join(f", {name} {value}" for name, value in config["task_options"].items())
    comparison.add(f"{config['task']}{options}", config["model"], result)
    console.print()
    console.print(comparison.table())
    if result.baseline is not None:
        console.print(f"Baseline: {result.baseline_label}.", soft_wrap=True)
    console.print(f"Report: {result.run_dir / 'report.html'}", soft_wrap=True)
