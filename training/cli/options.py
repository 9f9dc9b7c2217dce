"""Options of `gradkeeper train` and `gradkeeper compare`: the settings of `ExperimentConfig`."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from gradkeeper.training.cli.support import pairs
from gradkeeper.training.experiment.config import NO_OPTION, ExperimentConfig

_TASK, _RUN = "Task", "Run directory"
_PANELS = ("", _TASK, "Model", "Optimizer", "Training", _RUN)


def takes(*parameters: inspect.Parameter) -> Callable[[Callable], Callable]:
    """Give a command these options; it receives them as keyword arguments."""

    def decorate(command: Callable) -> Callable:
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def argument(name: str, kind: Any, text: str, **default: Any) -> inspect.Parameter:
    """Return a positional argument; it is required without `default`."""
    info = typer.Argument(help=text, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], **default
    )


def _option(panel: str, flag: str, kind: Any, text: str, default: Any = None) -> inspect.Parameter:
    info = typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)
    name = flag.partition("/")[0].removeprefix("--").replace("-", "_")
    kind = kind if default is not None else kind | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


MODEL = argument(
    "model", str | None, "A model of the zoo; `gradkeeper list` names all.", default=None
)
RUN_DIR = _option(
    _RUN, "--run-dir", Path, "Run directory; by default the next free runs/... folder."
)
OVERWRITE = _option(_RUN, "--overwrite", bool, "Delete the existing run in --run-dir.", False)
RESUME = _option(
    _RUN,
    "--resume",
    bool,
    "Continue the run in --run-dir; MODEL and options can be omitted.",
    False,
)
ALLOW_CHANGED_DATA = _option(
    _RUN,
    "--allow-changed-data",
    bool,
    "With --resume: continue even if your data file has changed.",
    False,
)
# Short forms of task options.
_OF_TASKS = (
    _option(_TASK, "--length", int, "Time steps of the task's sequences."),
    _option(
        _TASK,
        "--text",
        str,
        "Your text file, UTF-8: short for --task text_file --option file=...; combine it with "
        "--task delimited_text for that task.",
    ),
    _option(_TASK, "--csv", str, "Your CSV file: short for --task csv --option file=..."),
    _option(_TASK, "--target", str, "Column of the CSV file to predict."),
    _option(
        _TASK,
        "--window",
        int,
        "Number of rows of the CSV file from which the next row is predicted. By default each row "
        "is one example.",
    ),
)


def setting_options(
    *, without: Collection[str] = (), has_recipes: bool = True
) -> list[inspect.Parameter]:
    """Return an option for each setting but the model and those in `without`, by panel.

    Args:
        without: names of settings.
        has_recipes: whether the command uses recipes, which the help text then mentions.
    """

    def options() -> Iterator[tuple[str, inspect.Parameter]]:
        for field in dataclasses.fields(ExperimentConfig):
            panel = field.metadata["panel"]
            if field.name == "task_options":
                yield from ((panel, each) for each in _OF_TASKS)
            if field.name not in (*without, "model") and panel != NO_OPTION:
                yield panel, _setting(field, has_recipes=has_recipes)

    found = sorted(options(), key=lambda each: _PANELS.index(each[0]))
    return [parameter for _, parameter in found]


def _setting(field: dataclasses.Field, *, has_recipes: bool) -> inspect.Parameter:
    kind: Any
    kinds = get_args(field.type) or (field.type,)
    flag, text = f"--{field.name.replace('_', '-')}", field.metadata["help"]
    if not has_recipes:
        text = text.replace(" the recipe's, or", "")
    if get_origin(field.type) is dict:
        # Repeated as key=value: --option, --model-option, --optimizer-option.
        flag, kind, text = flag.removesuffix("s"), list[str], f"{text}; can be repeated."
        flag = flag.replace("--task-", "--")
    elif bool in kinds:
        flag, kind = f"{flag}/--no-{flag.removeprefix('--')}", bool
    else:
        kind = Path if field.name == "data_dir" else kinds[0]
    if not text.endswith("."):
        text += f"; default {field.default}."
    return _option(field.metadata["panel"], flag, kind, text)


def require_task(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the settings lack a task."""
    if "task" not in settings:
        raise ValueError(
            "`--task` is missing; `gradkeeper list` shows all. For your own data, use `--text`, or "
            "`--csv` with `--target`. Received: task=None"
        )


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `Experiment` from the values of `setting_options`.

    Raises:
        ValueError: if both `--text` and `--csv` are set, or an option is not key=value.
    """
    found: dict[str, Any] = {name: each for name, each in options.items() if each is not None}
    text, csv = found.pop("text", None), found.pop("csv", None)
    if text is not None and csv is not None:
        raise ValueError(f"Use either `--text` or `--csv`. Received: --text {text} --csv {csv}")
    of_task: dict[str, Any] = {
        name: found.pop(name) for name in ("target", "window", "length") if name in found
    }
    if text is not None or csv is not None:
        found.setdefault("task", "csv" if text is None else "text_file")
        of_task = {"file": csv if text is None else text, **of_task}
    for flag, name in (
        ("model_option", "model_options"),
        ("optimizer_option", "optimizer_options"),
    ):
        if flag in found:
            found[name] = pairs(f"--{flag.replace('_', '-')}", found.pop(flag))
    further = pairs("--option", found.pop("option", ()))
    twice = sorted(set(of_task) & set(further))
    if twice:
        raise ValueError(
            f"An option of the task is given twice. Received: --{twice[0]} and --option {twice[0]}"
        )
    of_task.update(further)
    return {**found, "task_options": of_task} if of_task else found
