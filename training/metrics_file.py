"""CSV file with one row of metrics per epoch."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import keras

from gradkeeper.callbacks._step_callback import steps_taken
from gradkeeper.training.run_directory import write_text

_FIRST = ("epoch", "step", "seconds")


class MetricsFile(keras.callbacks.Callback):
    """Append a row to a CSV file after each epoch; the file is rewritten atomically.

    Columns: `epoch` (from 0), `step` (total train steps), `seconds` (of this epoch, including
    validation and later recording), then the epoch's logs. A resumed training keeps the rows
    before the epoch at which it starts.

    Args:
        path: the CSV file.
        first_epoch: the epoch at which this training starts.
        writes: True if this process writes the file.
    """

    def __init__(self, path: Path, *, first_epoch: int = 0, writes: bool = True) -> None:
        super().__init__()
        self._path, self._writes = path, writes
        before = read_metrics(path) if path.exists() else []
        self.rows: list[dict[str, float]] = [row for row in before if row["epoch"] < first_epoch]
        self._is_current = path.exists() and len(self.rows) == len(before)
        self._began = 0.0

    @property
    def columns(self) -> dict[str, list[float]]:
        """The table by column; NaN for a missing value."""
        return columns_of(self.rows)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._is_current:
            self._write()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {
            "epoch": float(epoch),
            "step": float(steps_taken(self.model)),
            "seconds": round(time.perf_counter() - self._began, 4),
        }
        row |= {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        if self._writes:
            write_metrics(self._path, self.rows)


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows with a header of all their columns; integers have no decimal point."""
    text = io.StringIO()
    names = list(dict.fromkeys([*_FIRST, *(name for row in rows for name in row)]))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {name: int(row[name]) for name in ("epoch", "step")})
    write_text(path, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read a file that `write_metrics` wrote; omit empty cells."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(file)
        ]


def columns_of(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Convert rows to columns; NaN for a missing value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, float("nan")) for row in rows] for name in names}
