"""Numbers of a table and their CSV file."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gradkeeper.training.experiment.run_directory import write_text


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured number and how it was obtained.

    Attributes:
        table: name of the table.
        model: a name of `zoo.list_models()`, or another name for the measured object.
        setting: distinguishes several rows of one model; "" for a single row.
        quantity: name of the measured quantity.
        value: the number; None without a value, for example if a limit was not reached.
        unit: unit of the number; "" for a dimensionless number.
        published: the number in the literature; None without one.
        source: the publication of that number.
        seeds: seeds of the runs, such as "0" or "0, 1".
        steps: number of train steps.
        seconds: wall time of the training, including evaluations.
        settings: training settings.
        machine: machine and versions.
    """

    table: str = ""
    model: str
    setting: str = ""
    quantity: str
    value: float | None
    unit: str = ""
    published: float | None = None
    source: str = ""
    seeds: str = "0"
    steps: int | None = None
    seconds: float | None = None
    settings: str = ""
    machine: str = ""

    @property
    def row(self) -> tuple[str, str]:
        """Key of the cell's row in a table."""
        return self.model, self.setting

    @property
    def difference(self) -> float | None:
        """Measured minus published number; None if one of them is missing."""
        if self.value is None or self.published is None:
            return None
        return self.value - self.published


COLUMNS = tuple(field.name for field in fields(Cell))
_NUMBERS = {"value": float, "published": float, "seconds": float, "steps": int}


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """Write a CSV file with one row per cell; numbers have four significant digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        writer.writerow({name: _text(value) for name, value in asdict(cell).items()})
    write_text(path, text.getvalue())


def read_cells(path: Path) -> list[Cell]:
    """Read a file that `write_cells` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Cell(**{name: _value(name, row[name]) for name in COLUMNS}) for row in _rows(file)]


def _rows(file: Any) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(file)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(
            f"A results file must have the columns {', '.join(COLUMNS)}. "
            f"Received: {', '.join(reader.fieldnames or ())}"
        )
    return reader


def _text(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.4g}"
    return value


def _value(name: str, text: str) -> Any:
    if name not in _NUMBERS:
        return text
    return _NUMBERS[name](text) if text else None
