"""Production of a table's CSV file and picture."""

from dataclasses import replace
from pathlib import Path

from results.cell import Cell, write_cells
from results.machine import machine
from results.registry import load_table
from results.setup import Setup


def produce(name: str, setup: Setup, out: Path) -> list[Path]:
    """Measure a table and write `<name>.csv` and `<name>.png` to a folder.

    Trained runs stay in `setup.runs`; after an interruption, the same call resumes them.

    Raises:
        ValueError: if the table does not exist, if there is no run to collect, or if
            `setup.runs` contains runs with other settings.
    """
    table = load_table(name)
    place = machine()
    setup.say(f"{name}: on {place}")
    cells: list[Cell] = []
    told = set()
    for cell in table.measure(setup):
        cells.append(replace(cell, table=name, machine=place))
        how = f"{cell.settings}; seed {cell.seeds}"
        if how not in told:
            told.add(how)
            setup.say(f"{name}: {how}")
        setup.say(f"{name}: {_told(cells[-1])}")
    if not cells:
        raise ValueError(f"There is no run to collect. Received: runs={str(setup.runs)!r}")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.csv", out / f"{name}.png"]
    write_cells(paths[0], cells)
    table.draw(cells).savefig(paths[1], metadata={"Software": None})
    return paths


def _told(cell: Cell) -> str:
    who = " ".join(part for part in cell.row if part)
    beside = "" if cell.published is None else f", published {cell.published:.4g}"
    value = "none" if cell.value is None else f"{cell.value:.4g} {cell.unit}".rstrip()
    return f"{who}, {cell.quantity}: {value}{beside}"
