"""Commands of `gradkeeper`.

The commands import TensorFlow lazily, so that `--help` and invalid options respond immediately.
"""

import ast
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from gradkeeper import __version__
from gradkeeper._arguments import choice
from gradkeeper.training.cli.bench import bench
from gradkeeper.training.cli.compare import compare
from gradkeeper.training.cli.replay import replay
from gradkeeper.training.cli.support import Commands, console, errors, loading
from gradkeeper.training.cli.train import train
from gradkeeper.training.cli.watch import watch
from gradkeeper.training.experiment.run_directory import write_text
from gradkeeper.training.tasks.registry import TASKS, list_tasks

Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Best = Annotated[
    bool,
    typer.Option(
        "--best", help="Use the model with the lowest validation loss instead of the last one."
    ),
]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Recurrent Keras models and tools that monitor their gradients.",
)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"gradkeeper {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None: ...


app.command()(train)
app.command()(compare)
app.command()(watch)


@app.command()
def predict(
    run: Run,
    csv: Annotated[
        Path, typer.Option("--csv", help="CSV file with the run's columns.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write; standard output by default.")
    ] = None,
    best: Best = False,
) -> None:
    """Predict the target of a RUN from a CSV file, in the units of the training data."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise FileNotFoundError(
            f"`--out` must be a file in an existing folder. Received: --out {out}"
        )
    with loading():
        from gradkeeper.training.inference import predict as predict_file
    found = predict_file(run, csv, best=best)
    if found.report:
        errors.print(f"Missing values: {found.report}", markup=False, soft_wrap=True)
    if out is None:
        typer.echo(found.to_csv(), nl=False)
    else:
        write_text(out, found.to_csv())
        console.print(f"Predictions: {out}", soft_wrap=True, markup=False)


@app.command()
def generate(
    run: Run,
    prompt: Annotated[str, typer.Option(help="Text to continue.", show_default=False)],
    length: Annotated[int, typer.Option(help="Number of characters to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="Below 1: likelier characters; 0: always the likeliest one.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same text.", show_default=False)
    ] = None,
    best: Best = False,
) -> None:
    """Continue a text with the language model of a RUN."""
    with loading():
        from gradkeeper.training.inference import generate as continue_text
    text = continue_text(run, prompt, length=length, temperature=temperature, seed=seed, best=best)
    typer.echo(text)


app.command()(replay)
app.command()(bench)


@app.command("list")
def list_all(
    pattern: Annotated[
        str, typer.Argument(help="Wildcards, such as '*lstm*', or the name of one model.")
    ] = "*",
) -> None:
    """List models and tasks; for one MODEL, print its equations, options and training recipe."""
    from gradkeeper import zoo

    if pattern in zoo.list_models():
        console.print(str(zoo.model_info(pattern)), highlight=False, markup=False, soft_wrap=True)
        return
    models, tasks = zoo.list_models(pattern), list_tasks(pattern)
    if not models and not tasks:
        choice("pattern", pattern, [*zoo.list_models(), *list_tasks()])
    infos = map(zoo.model_info, models)
    rows = [(info.name, info.title, str(info.year)) for info in infos]
    _print_table("Models", ("model", "description", "year"), rows)
    _print_table("Tasks", ("task", "description"), [(name, _title(name)) for name in tasks])


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table unless it is empty."""
    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(headings[0], style="cyan", no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    if rows:
        console.print(table)


def _title(task: str) -> str:
    """Return the first line of the task's docstring, without importing its module."""
    module, _, name = TASKS[task].partition(":")
    spec = find_spec(f"gradkeeper.training.tasks.{module}")
    tree = ast.parse(Path(str(spec and spec.origin)).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return str(ast.get_docstring(node)).partition("\n")[0].rstrip(".")
    return ""


@app.command()
def report(
    run_dir: Run,
) -> None:
    """Rewrite the report and the pictures of a run, without training."""
    with loading():
        from gradkeeper.training.experiment.result import Result
        from gradkeeper.training.reporting.reports import write_run_report
    directory = write_run_report(Result.load(run_dir))
    console.print(f"Report: {directory.report}", soft_wrap=True, markup=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path(
        "gradkeeper-demo"
    ),
) -> None:
    """Train a network that explodes, the same network with clipping, and gated networks."""
    with loading():
        from gradkeeper.training.comparison.demo import run_demo
    run_demo(out, console=console)
