"""Commands of `gradkeeper`.

The commands import TensorFlow lazily, so that `--help` and invalid options respond immediately.
"""

from pathlib import Path
from typing import Annotated

import typer

from gradkeeper import __version__
from gradkeeper.training.cli.bench import bench
from gradkeeper.training.cli.compare import compare
from gradkeeper.training.cli.inference import generate, predict
from gradkeeper.training.cli.replay import replay
from gradkeeper.training.cli.support import Commands, console, loading
from gradkeeper.training.cli.train import train

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
app.command()(predict)
app.command()(generate)
app.command()(replay)
app.command()(bench)


@app.command("list")
def list_all(
    pattern: Annotated[
        str, typer.Argument(help="Wildcards, such as '*lstm*', or the name of one model.")
    ] = "*",
) -> None:
    """List models and tasks; for one MODEL, print its equations, options and training recipe."""
    from gradkeeper.training.cli.catalogue import print_catalogue

    print_catalogue(console, pattern)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
) -> None:
    """Rewrite the report and the pictures of a run, without training."""
    with loading():
        from gradkeeper.training.result import Result
        from gradkeeper.training.run_report import write_run_report
    directory = write_run_report(Result.load(run_dir))
    console.print(f"Report: {directory.report}", soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path(
        "gradkeeper-demo"
    ),
) -> None:
    """Train a network that explodes, the same network with clipping, and gated networks."""
    with loading():
        from gradkeeper.training.demo import run_demo
    run_demo(out, console=console)
