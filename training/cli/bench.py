"""`gradkeeper bench`."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.cli.support import console, loading

_LIST, _PAGE, _WEIGHTS, _ALL = "list", "page", "weights", "all"
_WORDS = {
    _ALL: "all of the tables above, one after the other",
    _PAGE: "write the page of the CSV files that are there",
    _WEIGHTS: "copy the weights that were trained for the tables into a folder",
    _LIST: "this list",
}


def bench(
    table: Annotated[
        str, typer.Argument(help="A table; or list, page, weights, all.", metavar="TABLE")
    ] = _LIST,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, for seconds; the numbers say nothing.")
    ] = False,
    collect: Annotated[
        bool,
        typer.Option(
            "--collect", help="Train nothing: take the runs that are there, also unfinished ones."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder of the CSV files and pictures; of weights, theirs.")
    ] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Folder in which runs are kept, and gone on with.")
    ] = Path("runs/bench"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of tensorflow-datasets.", show_default=False)
    ] = None,
) -> None:
    """Repeat a TABLE of results: a CSV file and a picture. `gradkeeper bench list` names them."""
    from gradkeeper.training.evidence.registry import TABLES

    if table == _LIST:
        _print_list(TABLES)
        return
    if table not in TABLES and table not in _WORDS:
        raise unknown_name("table", table, [*TABLES, *_WORDS])
    with loading():
        from gradkeeper.training.evidence.export import export_weights
        from gradkeeper.training.evidence.page import write_page
        from gradkeeper.training.evidence.produce import produce
        from gradkeeper.training.evidence.setup import Setup
    if table == _PAGE:
        _tell([write_page(out, out.resolve().parent / f"{out.resolve().name}.md")])
        return
    folder = runs.with_name(f"{runs.name}-quick") if quick else runs
    if table == _WEIGHTS:
        _tell(export_weights(folder, out, data_dir=data_dir))
        return
    for name in TABLES if table == _ALL else [table]:
        setup = Setup(
            runs=folder / name, quick=quick, collect=collect, data_dir=data_dir, console=console
        )
        _tell(produce(name, setup, out))


def _print_list(tables: dict[str, str]) -> None:
    shown = Table(title="Tables", title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("table", style="cyan", no_wrap=True)
    shown.add_column("what it is")
    for name, text in [*tables.items(), *_WORDS.items()]:
        shown.add_row(name, text)
    console.print(shown)


def _tell(paths: list[Path]) -> None:
    for path in paths:
        console.print(str(path), soft_wrap=True)
