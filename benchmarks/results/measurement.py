"""Measured numbers of a table and their CSV file."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gradkeeper.training.experiment.run_directory import write_text


@dataclass(frozen=True, kw_only=True)
class Measurement:
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
        """Key of the row that shows the number."""
        return self.model, self.setting


LOWEST, MEDIAN, HIGHEST = "lowest", "median", "highest"


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the lowest value, the median and the highest, by name.

    NaN, the loss of a run that diverged, is higher than any number.
    """
    ordered = sorted(values, key=lambda value: (math.isnan(value), value))
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return {LOWEST: ordered[0], MEDIAN: sum(middle) / 2, HIGHEST: ordered[-1]}


COLUMNS = tuple(field.name for field in fields(Measurement))
_NUMBERS = {"value": float, "published": float, "seconds": float, "steps": int}


def write_measurements(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write a CSV file with one row per measurement; numbers have four significant digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in measurements:
        writer.writerow({name: _text(value) for name, value in asdict(each).items()})
    write_text(path, text.getvalue())


def read_measurements(path: Path) -> list[Measurement]:
    """Read a file that `write_measurements` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"A results file must have the columns {', '.join(COLUMNS)}. "
                f"Received: {', '.join(reader.fieldnames or ())}"
            )
        return [
            Measurement(**{name: _value(name, row[name]) for name in COLUMNS}) for row in reader
        ]


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
