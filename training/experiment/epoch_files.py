"""Files with a row or a record per epoch: metrics, and gradients through time."""

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks._step_callback import steps_taken
from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.callbacks.temporal_gradient_flow import TemporalGradientFlow
from gradkeeper.training.experiment.run_directory import write_text

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


_PATTERN = "flow-*.npz"


class FlowFiles(keras.callbacks.Callback):
    """Write each record of a `TemporalGradientFlow` to a file, atomically.

    A resumed training keeps the records up to the epoch at which it starts.

    Args:
        folder: folder of the files.
        flow: the callback that records, attached before this one.
        first_epoch: the epoch at which this training starts.
    """

    def __init__(self, folder: Path, flow: TemporalGradientFlow, *, first_epoch: int = 0) -> None:
        super().__init__()
        self._folder, self._flow = folder, flow
        for epochs, path in _files(folder).items():
            if epochs > first_epoch:
                path.unlink()
        flow.flows.update(read_flows(folder))
        self._written = set(flow.flows)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write()

    def _write(self) -> None:
        for epochs in self._flow.flows.keys() - self._written:
            write_flow(self._folder, epochs, self._flow.flows[epochs])
            self._written.add(epochs)


def write_flow(folder: Path, epochs: int, flow: GradientFlow) -> None:
    """Write a record to `flow-<epochs>.npz` in the folder.

    Arrays: `loss`; `layers` and `states`, the names of each state; `norms_0`, `norms_1`, ..., the
    L2 norms of the gradients with respect to the states, [time, batch], NaN where masked.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"norms_{number}": each.norms for number, each in enumerate(flow)}
    arrays["layers"], arrays["states"] = (
        [each.layer for each in flow],
        [each.state for each in flow],
    )
    np.savez_compressed(buffer, loss=flow.loss, **arrays)
    path = folder / f"flow-{epochs:05}.npz"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)


def read_flows(folder: Path) -> dict[int, GradientFlow]:
    """Return the records of a folder by the number of epochs trained; empty without the folder."""
    return {epochs: _read(path) for epochs, path in _files(folder).items()}


def _files(folder: Path) -> dict[int, Path]:
    return {int(path.stem.partition("-")[2]): path for path in sorted(folder.glob(_PATTERN))}


def _read(path: Path) -> GradientFlow:
    with np.load(path) as arrays:
        names = zip(arrays["layers"].tolist(), arrays["states"].tolist(), strict=True)
        states = [
            StateFlow(layer, state, arrays[f"norms_{number}"])
            for number, (layer, state) in enumerate(names)
        ]
        return GradientFlow(tuple(states), float(arrays["loss"]))
