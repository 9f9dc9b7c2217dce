"""The options of `train` and `compare`, each described once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gradkeeper.training.cli.support import given, pairs

_MODEL, _TASK, _OPTIMIZER, _TRAINING, _RUN = (
    "Model",
    "Task",
    "Optimizer",
    "Training",
    "Run directory",
)


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


Task = Annotated[
    str | None, _option(_TASK, "What to train on; `gradkeeper list` names all.", "--task")
]
Length = Annotated[int | None, _option(_TASK, "Time steps of the task's sequences.", "--length")]
TaskOptions = Annotated[
    list[str] | None,
    _option(_TASK, "A further option of the task as key=value; may be repeated.", "--option"),
]
Text = Annotated[
    str | None,
    _option(
        _TASK,
        "A text file of yours, UTF-8: short for --task text_file --option file=...; with "
        "--task delimited_text for that task.",
        "--text",
    ),
]
Csv = Annotated[
    str | None,
    _option(_TASK, "A CSV file of yours: short for --task csv --option file=...", "--csv"),
]
Target = Annotated[str | None, _option(_TASK, "The column of the CSV file to predict.", "--target")]
Window = Annotated[
    int | None,
    _option(
        _TASK,
        "Rows of the CSV file from which the next one is predicted; without it each row is an "
        "example.",
        "--window",
    ),
]
DataDir = Annotated[Path | None, _option(_TASK, "Folder of tensorflow-datasets.", "--data-dir")]
Units = Annotated[int | None, _option(_MODEL, "Width of each recurrent layer.", "--units")]
NumLayers = Annotated[
    int | None, _option(_MODEL, "Recurrent layers on top of each other.", "--num-layers")
]
ModelOptions = Annotated[
    list[str] | None,
    _option(
        _MODEL,
        "A further argument of zoo.create_model as key=value; may be repeated.",
        "--model-option",
    ),
]
Optimizer = Annotated[
    str | None,
    _option(_OPTIMIZER, "Its name; the recipe of the zoo entry by default.", "--optimizer"),
]
LearningRate = Annotated[
    float | None, _option(_OPTIMIZER, "The recipe of the zoo entry by default.", "--learning-rate")
]
Clipnorm = Annotated[
    float | None, _option(_OPTIMIZER, "Largest norm of each variable's gradient.", "--clipnorm")
]
GlobalClipnorm = Annotated[
    float | None,
    _option(_OPTIMIZER, "Largest norm of all gradients together.", "--global-clipnorm"),
]
Clipvalue = Annotated[
    float | None,
    _option(_OPTIMIZER, "Largest absolute value of each gradient element.", "--clipvalue"),
]
Schedule = Annotated[
    str | None, _option(_OPTIMIZER, "constant, cosine, exponential, linear or step.", "--schedule")
]
OptimizerOptions = Annotated[
    list[str] | None,
    _option(
        _OPTIMIZER,
        "A further argument of make_optimizer as key=value (momentum=0.9); may be repeated.",
        "--optimizer-option",
    ),
]
BatchSize = Annotated[
    int | None,
    _option(_TRAINING, "Examples per train step, of all replicas; 50 by default.", "--batch-size"),
]
Epochs = Annotated[int | None, _option(_TRAINING, "In all; 10 by default.", "--epochs")]
StepsPerEpoch = Annotated[
    int | None, _option(_TRAINING, "The task's own number by default.", "--steps-per-epoch")
]
StepsPerExecution = Annotated[
    int | None,
    _option(_TRAINING, "Train steps per call of the compiled function.", "--steps-per-execution"),
]
JitCompile = Annotated[
    bool | None,
    _option(
        _TRAINING, "Compile with XLA; Keras decides by default.", "--jit-compile/--no-jit-compile"
    ),
]
Strategy = Annotated[
    str | None,
    _option(
        _TRAINING,
        "auto, one_device, mirrored (all GPUs of this machine) or multi_worker (the machines "
        "that TF_CONFIG names); auto by default.",
        "--strategy",
    ),
]
Seed = Annotated[
    int | None, _option(_TRAINING, "Of weights, batches and dropout; 0 by default.", "--seed")
]
Flow = Annotated[
    bool | None,
    _option(
        _TRAINING,
        "Record how far back in time the gradient reaches, before training and after epochs.",
        "--flow/--no-flow",
    ),
]
FlowRegularizer = Annotated[
    float | None,
    _option(
        _TRAINING,
        "Weight of the regularizer that keeps the gradient's norm from step to step.",
        "--flow-regularizer",
    ),
]
RunDir = Annotated[
    Path | None,
    _option(_RUN, "Where the run is kept; the next free runs/... by default.", "--run-dir"),
]
Overwrite = Annotated[
    bool, _option(_RUN, "Delete the run that the directory holds.", "--overwrite")
]
AllowChangedData = Annotated[
    bool,
    _option(
        _RUN,
        "With --resume: go on even though your data file has changed.",
        "--allow-changed-data",
    ),
]
Resume = Annotated[
    bool,
    _option(
        _RUN,
        "Go on with the run that --run-dir holds; MODEL and options may be left out.",
        "--resume",
    ),
]


def task_arguments(
    *,
    task: str | None,
    text: str | None,
    csv: str | None,
    option: list[str] | None,
    **options: Any,
) -> dict[str, Any]:
    """The arguments `task` and `task_options` of `Experiment`, from the options of a task.

    Raises:
        ValueError: `--text` and `--csv` are both given.
    """
    if text is not None and csv is not None:
        raise ValueError(f"Choose either `--text` or `--csv`. Received: --text {text} --csv {csv}")
    if task is None and (text is not None or csv is not None):
        task = "csv" if text is None else "text_file"
    file = csv if text is None else text
    of_task = {**given(file=file, **options), **pairs("--option", option)}
    return given(task=task, task_options=of_task or None)
