"""A number of a table, and the CSV file of all of them."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gradkeeper.training.run_directory import write_text


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number, with all that is needed to judge it.

    Attributes:
        table: name of the table.
        model: a name of `zoo.list_models()`, or what else was measured.
        setting: what tells this row from others of the model; "" where there is one only.
        quantity: what the number is.
        value: the number; None where there is none, as of what was not reached.
        unit: its unit; "" for a pure number.
        published: the number of the literature; None where there is none.
        source: where that is printed.
        seeds: the seeds that it is of, such as "0" or "0, 1".
        steps: train steps that it took.
        seconds: wall time of the training, evaluations included.
        settings: how it was trained.
        machine: where.
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
        """What names its row in a table."""
        return self.model, self.setting

    @property
    def difference(self) -> float | None:
        """Ours less the published number; None where one of them is missing."""
        if self.value is None or self.published is None:
            return None
        return self.value - self.published


COLUMNS = tuple(field.name for field in fields(Cell))
_NUMBERS = {"value": float, "published": float, "seconds": float, "steps": int}


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """Writes a CSV file, a row per cell; four significant digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        writer.writerow({name: _text(value) for name, value in asdict(cell).items()})
    write_text(path, text.getvalue())


def read_cells(path: Path) -> list[Cell]:
    """Reads what `write_cells` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Cell(**{name: _value(name, row[name]) for name in COLUMNS}) for row in _rows(file)]


def _rows(file: Any) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(file)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(
            f"A table of results has the columns {', '.join(COLUMNS)}. "
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
