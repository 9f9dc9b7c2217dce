"""`gradkeeper replay`: rerun a step from a capsule and locate the first non-finite number."""

import importlib
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from gradkeeper.training.cli.support import console, loading

if TYPE_CHECKING:
    import keras

    from gradkeeper.callbacks import Capsule, Verdict


def replay(
    capsule: Annotated[Path, typer.Argument(help="Folder of the capsule.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            help="For custom layers, losses or metrics: a function without arguments that returns "
            "the compiled model, as MODULE:FUNCTION or FILE.py:FUNCTION.",
            metavar="MODULE:FUNCTION",
        ),
    ] = None,
    trust_model: Annotated[
        bool,
        typer.Option(
            "--trust-model",
            help="With Keras 3.13.1 or earlier: create the model from the capsule's configuration. "
            "There, a configuration can load files and run code.",
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of the step's numbers to write.")
    ] = None,
) -> None:
    """Rerun a failing step and report which number was the first that is not finite."""
    with loading():
        import gradkeeper.zoo  # noqa: F401 - registers its layers
        from gradkeeper.callbacks import Capsule
        from gradkeeper.callbacks import replay as run
        from gradkeeper.callbacks.diagnosis import plot_verdict
    held = Capsule.read(capsule)
    _print_capsule(held)
    with console.status("Running the step again"):
        verdict = run(held, None if model is None else _model(model), trust_model=trust_model)
    _print_verdict(verdict)
    if plot is not None:
        plot_verdict(verdict).savefig(plot)
        console.print(f"Picture: {plot}", soft_wrap=True, markup=False)


def _model(place: str) -> "keras.Model":
    """Return the compiled model that `--model` names.

    Args:
        place: `module:name` or `file.py:name`, where name is a model or a function without
            arguments that returns one. Modules are also searched for in the working directory.

    Raises:
        ValueError: if the module or name does not exist, or is not a compiled model.
    """
    import keras

    module, colon, name = place.rpartition(":")
    if not colon:
        raise ValueError(
            f"`--model` must be MODULE:FUNCTION or FILE.py:FUNCTION. Received: --model {place}"
        )
    found = getattr(_module(module, place), name, None)
    if found is None:
        raise ValueError(f"No attribute {name!r} in {module}. Received: --model {place}")
    if callable(found) and not isinstance(found, keras.Model):
        if _needs_arguments(found):
            raise ValueError(
                f"`--model` must name a function without arguments. Received: --model {place}, "
                f"{name}{inspect.signature(found)}"
            )
        found = found()
    if not isinstance(found, keras.Model):
        raise ValueError(  # noqa: TRY004 - the command reports a ValueError in one line
            f"{name} must return a compiled keras.Model. Received: --model {place}, which returns "
            f"an object of type {type(found).__name__}"
        )
    return found


def _module(name: str, place: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    path = Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ValueError(f"The file {name} does not exist. Received: --model {place}")
    if is_file and str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))
    try:
        return importlib.import_module(path.stem if is_file else name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0] and error.name != name:
            raise
        raise ValueError(f"The module {name} does not exist. Received: --model {place}") from None


def _needs_arguments(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    return False


def _print_capsule(capsule: "Capsule") -> None:
    facts, versions = capsule.facts, capsule.facts["versions"]
    backend = next(each for each in ("tensorflow", "jax", "torch") if each in versions)
    console.print(
        f"Step {capsule.step:,} of {facts['model']['name']} "
        f"(keras {versions['keras']}, {backend} {versions[backend]}): "
        f"loss {facts['loss']:.4g}, gradient norm {facts['norm']:.4g}, policy {facts['policy']}",
        soft_wrap=True,
        markup=False,
        style="bold",
    )
    for text in capsule.left_out:
        console.print(f"  left out: {text}", style="yellow", markup=False, soft_wrap=True)


def _print_verdict(verdict: "Verdict") -> None:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in verdict.facts.items():
        style = {"First not finite": "bold red", "Remedy": "green"}.get(heading, "")
        table.add_row(heading, Text(text), style=style)
    console.print(table)
    console.print(_path_table(verdict))


def _path_table(verdict: "Verdict") -> Table:
    from gradkeeper.callbacks.diagnosis.verdict import summaries

    table = Table(box=box.SIMPLE_HEAD, title="Numbers along the step", title_justify="left")
    for heading in ("layer", "calls", "outputs", "gradients coming back"):
        table.add_column(heading, overflow="fold")
    for each in summaries(verdict.path):
        is_bad = each.path == verdict.layer
        calls = str(each.calls)
        if each.first_bad:
            calls += f" (not finite from call {each.first_bad} on)"
        table.add_row(
            Text(each.path),
            calls,
            Text(str(each.returned or "–")),
            Text(str(each.gradient or "–")),
            style="red" if is_bad else "",
        )
    return table
