"""Gradient norms as a folder of Parquet parts, readable at any moment."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradkeeper.callbacks.window import Window

_PART = re.compile(r"gradients-(\d{6,})\.parquet")
_VARIABLES = b"gradkeeper.variables"
_MATRICES = ("norm", "present", "applied_norm", "updated")


class ParquetSink:
    """Appends windows to `log_dir` as `gradients-000000.parquet`, `gradients-000001.parquet`, ...

    Each part has a row per train step with the columns `step` (int64) and `norm`, `present`,
    `applied_norm`, `updated` (lists with an item per variable); the variables' paths are in
    the schema's metadata. A part is written under a temporary name and renamed, so that
    what a reader finds is whole.

    Args:
        log_dir: the folder; made if it is not there.
        rows_per_part: train steps that are collected before a part is written.
    """

    def __init__(self, log_dir: str | Path, rows_per_part: int = 1000) -> None:
        self._folder = Path(log_dir)
        self._rows_per_part = rows_per_part
        self._folder.mkdir(parents=True, exist_ok=True)
        self._waiting: list[Window] = []

    def keep_before(self, step: int) -> list[Window]:
        """Drops what the folder holds from `step` on, as a resumed run records it again.

        Returns:
            The windows that stay.
        """
        kept = []
        for path in _parts(self._folder):
            window = _read(path)
            before = window[: int(np.searchsorted(window.steps, step))]
            if not len(before):
                path.unlink()
                continue
            if len(before) < len(window):
                _write(path, before)
            kept.append(before)
        return kept

    def write(self, window: Window) -> None:
        """Takes the window; writes a part when enough rows wait."""
        self._waiting.append(window)
        if sum(map(len, self._waiting)) >= self._rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that wait."""
        if not self._waiting:
            return
        numbers = [_number(path) for path in _parts(self._folder)]
        path = self._folder / f"gradients-{max(numbers, default=-1) + 1:06d}.parquet"
        _write(path, Window.concatenate(self._waiting))
        self._waiting = []


def read_parts(log_dir: str | Path) -> Iterator[Window]:
    """The windows in the folder, oldest first."""
    return map(_read, _parts(Path(log_dir)))


def _parts(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*.parquet") if _PART.fullmatch(p.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("gradients-"))


def _write(path: Path, window: Window) -> None:
    matrices = (window.norms, window.present, window.applied_norms, window.updated)
    columns = {"step": pa.array(window.steps)}
    for name, matrix in zip(_MATRICES, matrices, strict=True):
        width = len(window.variables)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width)
    table = pa.table(columns).replace_schema_metadata({_VARIABLES: json.dumps(window.variables)})
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def _read(path: Path) -> Window:
    table = pq.read_table(path)
    variables = tuple(json.loads(table.schema.metadata[_VARIABLES]))
    matrices = [
        table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in _MATRICES
    ]
    norms, present, applied, updated = (each.reshape(-1, len(variables)) for each in matrices)
    return Window(table["step"].to_numpy(), variables, norms, present, applied, updated)
