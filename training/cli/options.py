"""Options that `gradkeeper train` and `gradkeeper compare` share."""

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
    str | None, _option(_TASK, "Task to train on; `gradkeeper list` names all.", "--task")
]
Length = Annotated[int | None, _option(_TASK, "Time steps of the task's sequences.", "--length")]
TaskOptions = Annotated[
    list[str] | None,
    _option(_TASK, "Another option of the task as key=value; can be repeated.", "--option"),
]
Text = Annotated[
    str | None,
    _option(
        _TASK,
        "Your text file, UTF-8: short for --task text_file --option file=...; combine it with "
        "--task delimited_text for that task.",
        "--text",
    ),
]
Csv = Annotated[
    str | None,
    _option(_TASK, "Your CSV file: short for --task csv --option file=...", "--csv"),
]
Target = Annotated[str | None, _option(_TASK, "Column of the CSV file to predict.", "--target")]
Window = Annotated[
    int | None,
    _option(
        _TASK,
        "Number of rows of the CSV file from which the next row is predicted. By default each row "
        "is one example.",
        "--window",
    ),
]
DataDir = Annotated[
    Path | None, _option(_TASK, "Data folder of tensorflow-datasets.", "--data-dir")
]
Units = Annotated[int | None, _option(_MODEL, "Width of each recurrent layer.", "--units")]
NumLayers = Annotated[
    int | None, _option(_MODEL, "Number of stacked recurrent layers.", "--num-layers")
]
ModelOptions = Annotated[
    list[str] | None,
    _option(
        _MODEL,
        "Another argument of zoo.create_model as key=value; can be repeated.",
        "--model-option",
    ),
]
Optimizer = Annotated[
    str | None,
    _option(_OPTIMIZER, "Name of the optimizer; by default the zoo entry's recipe.", "--optimizer"),
]
LearningRate = Annotated[
    float | None, _option(_OPTIMIZER, "By default the zoo entry's recipe.", "--learning-rate")
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
        "Another argument of make_optimizer as key=value (momentum=0.9); can be repeated.",
        "--optimizer-option",
    ),
]
BatchSize = Annotated[
    int | None,
    _option(_TRAINING, "Examples per train step over all replicas; default 50.", "--batch-size"),
]
Epochs = Annotated[
    int | None, _option(_TRAINING, "Total number of epochs; default 10.", "--epochs")
]
StepsPerEpoch = Annotated[
    int | None, _option(_TRAINING, "By default the task's number.", "--steps-per-epoch")
]
StepsPerExecution = Annotated[
    int | None,
    _option(_TRAINING, "Train steps per call of the compiled function.", "--steps-per-execution"),
]
JitCompile = Annotated[
    bool | None,
    _option(
        _TRAINING, "Compile with XLA; by default Keras decides.", "--jit-compile/--no-jit-compile"
    ),
]
Strategy = Annotated[
    str | None,
    _option(
        _TRAINING,
        "auto, one_device, mirrored (all GPUs of this machine) or multi_worker (the machines in "
        "TF_CONFIG); default auto.",
        "--strategy",
    ),
]
Seed = Annotated[
    int | None, _option(_TRAINING, "Seed of weights, batches and dropout; default 0.", "--seed")
]
Flow = Annotated[
    bool | None,
    _option(
        _TRAINING,
        "Record how far back in time gradients reach, before training and after each epoch.",
        "--flow/--no-flow",
    ),
]
FlowRegularizer = Annotated[
    float | None,
    _option(
        _TRAINING,
        "Weight of the regularizer that preserves the gradient's norm from step to step.",
        "--flow-regularizer",
    ),
]
RunDir = Annotated[
    Path | None,
    _option(_RUN, "Run directory; by default the next free runs/... folder.", "--run-dir"),
]
Overwrite = Annotated[bool, _option(_RUN, "Delete the existing run in --run-dir.", "--overwrite")]
AllowChangedData = Annotated[
    bool,
    _option(
        _RUN,
        "With --resume: continue even if your data file has changed.",
        "--allow-changed-data",
    ),
]
Resume = Annotated[
    bool,
    _option(
        _RUN,
        "Continue the run in --run-dir; MODEL and options can be omitted.",
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
    """Return the `task` and `task_options` arguments of `Experiment` from the task's options.

    Raises:
        ValueError: if both `--text` and `--csv` are set.
    """
    if text is not None and csv is not None:
        raise ValueError(f"Use either `--text` or `--csv`. Received: --text {text} --csv {csv}")
    if task is None and (text is not None or csv is not None):
        task = "csv" if text is None else "text_file"
    file = csv if text is None else text
    of_task = {**given(file=file, **options), **pairs("--option", option)}
    return given(task=task, task_options=of_task or None)
