"""`gradkeeper bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from gradkeeper._arguments import choice
from gradkeeper.training.cli.support import console, loading

_CHECKOUT = Path(__file__).resolve().parents[2]
_FINISHED = _CHECKOUT / "benchmarks" / "results" / "finished"
_LIST, _PAGE, _WEIGHTS, _ALL = "list", "page", "weights", "all"
_WORDS = {
    _ALL: "all tables above, one after the other",
    _PAGE: "write the page of results from the existing CSV files",
    _WEIGHTS: "copy the weights trained for the tables into a folder",
    _LIST: "print this list",
}


def bench(
    table: Annotated[
        str, typer.Argument(help="Name of a table; or list, page, weights, all.", metavar="TABLE")
    ] = _LIST,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use tiny sizes (seconds); the numbers mean nothing.")
    ] = False,
    collect: Annotated[
        bool,
        typer.Option(
            "--collect", help="Train nothing: use the existing runs, including unfinished ones."
        ),
    ] = False,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Train also the runs whose results are in the repository."),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for CSV files and pictures, or for the weights.")
    ] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Folder of the run directories; unfinished runs are resumed.")
    ] = Path("runs/bench"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder of tensorflow-datasets.", show_default=False)
    ] = None,
) -> None:
    """Reproduce a TABLE of results: a CSV file and a picture. `gradkeeper bench list` names all.

    Works in a checkout of the repository, with `pip install -e .`.
    """
    _find_results()
    from results.table import TABLES

    if table == _LIST:
        _print_list(TABLES)
        return
    choice("table", table, [*TABLES, *_WORDS])
    with loading():
        import keras
        from results.export_weights import export_weights
        from results.page import write_page
        from results.run_table import run_table
        from results.table import BenchConfig
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`gradkeeper bench` measures on the TensorFlow backend of Keras only. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if table == _PAGE:
        _print_paths([write_page(out, out.resolve().parent / f"{out.resolve().name}.md")])
        return
    folder = runs.with_name(f"{runs.name}-quick") if quick else runs
    if table == _WEIGHTS:
        _print_paths(export_weights(folder, out, data_dir=data_dir))
        return
    for name in TABLES if table == _ALL else [table]:
        config = BenchConfig(
            runs=folder / name,
            quick=quick,
            collect=collect,
            finished=None if quick or retrain else _FINISHED / f"{name}.jsonl",
            data_dir=data_dir,
            console=console,
        )
        _print_paths(run_table(name, config, out))


def _find_results() -> None:
    """Add `benchmarks/` to the import path, as for the scripts in that folder.

    Raises:
        ImportError: if gradkeeper is not installed from a checkout.
    """
    folder = _CHECKOUT / "benchmarks"
    if not (folder / "results" / "__init__.py").is_file():
        raise ImportError(
            "`gradkeeper bench` works in a checkout only: the package does not include the tables "
            "of `benchmarks/results/`. Clone the repository, run `python -m pip install -e .` in "
            f"it, and try again. Received: gradkeeper in {str(Path(__file__).parents[2])!r}"
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _print_list(tables: dict[str, tuple[str, str]]) -> None:
    shown = Table(title="Tables", title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("table", style="cyan", no_wrap=True)
    shown.add_column("description")
    descriptions = {name: text for name, (_, text) in tables.items()}
    for name, text in {**descriptions, **_WORDS}.items():
        shown.add_row(name, text)
    console.print(shown)


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        console.print(str(path), soft_wrap=True)
