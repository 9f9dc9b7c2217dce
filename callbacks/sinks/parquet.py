"""Sink that writes Parquet files, and readers of these files.

A part has one row per train step. Its columns are `step` (int64), `present` and `updated` (lists
of bool, one item per variable), the statistics per variable (`norm`, `applied_norm`, ...; lists of
float), the statistics per step (`loss`, ...; float64), and with several replicas `replica_norms`
(lists of replicas x variables floats). With the measurement "activations", the columns
`activations.mean`, `activations.std`, ... are lists of float, one item per layer call. The schema's
metadata contains the variable paths, the names of the layer calls, the index of the first replica,
and the facts about the run; pandas reads the names as `attrs["variables"]` and
`attrs["activations"]`.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradkeeper.callbacks._workers import folders_of_others
from gradkeeper.callbacks.activations import Activations
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window

_VARIABLES = b"gradkeeper.variables"
_FIRST_REPLICA = b"gradkeeper.first_replica"
_FACTS = b"gradkeeper.facts"
_CALLS = b"gradkeeper.activations"
# Prefix of the columns of layer outputs.
_OF_OUTPUTS = "activations."
# Metadata key that pandas reads as the `attrs` of a data frame.
_PANDAS = b"PANDAS_ATTRS"
_OWN = ("step", "present", "updated", "replica_norms")
# Last bytes of a Parquet file; the writer adds them after all other data.
_END = b"PAR1"


def write_part(path: Path, window: Window) -> None:
    """Write the window to a part; the file appears only when it is complete."""
    lists = {"present": window.present, "updated": window.updated, **window.values}
    lists["replica_norms"] = window.replica_norms
    activations = window.activations
    lists |= {_OF_OUTPUTS + name: value for name, value in activations.values.items()}
    columns = {"step": pa.array(window.steps)}
    # Arrow does not support fixed-size lists of length 0.
    columns |= {name: _lists(value) for name, value in lists.items() if value.size}
    columns |= {name: pa.array(value) for name, value in window.scalars.items()}
    metadata = {
        _VARIABLES: json.dumps(window.variables),
        _PANDAS: json.dumps({"variables": window.variables, "activations": activations.names}),
        _CALLS: json.dumps(activations.names),
        _FIRST_REPLICA: str(window.first_replica),
        _FACTS: json.dumps(dataclasses.asdict(window.facts)),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Norms rarely repeat: a dictionary takes three times as long and saves no space.
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_part(path: Path) -> Window:
    """Read a part. The first format, with norms and flags only, is supported."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    metadata = table.schema.metadata
    variables = tuple(json.loads(metadata[_VARIABLES]))
    first = int(metadata.get(_FIRST_REPLICA, 0))
    facts = RunFacts.from_dict(json.loads(metadata[_FACTS])) if _FACTS in metadata else RunFacts()
    rows, width = table.num_rows, len(variables)
    lists, scalars = {}, {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            lists[name] = column.flatten().to_numpy(zero_copy_only=False)
        else:
            scalars[name] = column.to_numpy(zero_copy_only=False)
    calls = tuple(json.loads(table.schema.metadata.get(_CALLS, "[]")))
    of_outputs = {
        name.removeprefix(_OF_OUTPUTS): lists.pop(name).reshape(rows, len(calls))
        for name in list(lists)
        if name.startswith(_OF_OUTPUTS)
    }
    matrices = {name: value.reshape(rows, -1, width) for name, value in lists.items()}
    none = np.zeros((rows, 1, width), bool)
    present, updated = (matrices.get(flag, none)[:, 0] for flag in ("present", "updated"))
    values = {name: value[:, 0] for name, value in matrices.items() if name not in _OWN}
    if "nonfinite" not in values and "norm" in values:
        # The first format has no element counts; a non-finite norm has at least one element.
        values["nonfinite"] = (present & ~np.isfinite(values["norm"])).astype(np.float32)
    replicas = matrices.get("replica_norms", np.zeros((0, 0, 0), np.float32))
    steps = scalars.pop("step")
    return Window(
        *(steps, variables, present, updated, values, scalars, replicas, first),
        facts=facts,
        activations=Activations(calls, of_outputs),
    )


def is_whole(path: Path) -> bool:
    """Return True if the part is complete; a power failure may truncate a part."""
    try:
        with path.open("rb") as file:
            file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read() == _END
    except FileNotFoundError:  # merged by a run in progress
        return False


def steps_of(path: Path) -> np.ndarray:
    """Return the train steps of a part, int64 [steps]."""
    with pq.ParquetFile(path) as file:
        return file.read(["step"])["step"].to_numpy()


def _lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """Convert an array [steps, ...] to one list per step."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


_PART = re.compile(r"gradients-(\d{6,})\.parquet")
# Number of small parts that are merged into one, so that a reader opens few files.
_MANY = 20


class ParquetSink(Sink):
    """Sink that writes `gradients-000000.parquet`, `gradients-000001.parquet`, ... to `log_dir`.

    Each window becomes a part immediately, so a killed process loses no written window. Small
    parts are merged from time to time. A part is written under a temporary name and renamed, so a
    reader finds complete parts only. A process killed during a merge leaves duplicate steps, and
    a power failure may leave a truncated part; `read_parts` skips both.

    Args:
        log_dir: directory; created if it does not exist.
        rows_per_part: number of train steps below which a part is small.
    """

    def __init__(self, log_dir: str | Path, *, rows_per_part: int = 1000) -> None:
        self._folder = Path(log_dir)
        self._rows_per_part = rows_per_part
        self._small: list[Path] = []
        self._next: int | None = None
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, window: Window) -> None:
        """Write the window as one part; the part is in the directory on return."""
        if not len(window):
            return
        number = self._look() if self._next is None else self._next
        self._next = None  # after a failed write the next call lists the directory again
        path = self._folder / f"gradients-{number:06d}.parquet"
        write_part(path, window)
        self._small = [*self._small, path] if len(window) < self._rows_per_part else []
        if len(self._small) >= _MANY:
            self._merge()
        self._next = number + 1

    def close(self) -> None:
        """Release the directory: another sink may write to it before the next `write`."""
        self._next = None

    def truncate_from(self, step: int) -> Iterable[Window]:
        for unfinished in self._folder.glob(".gradients-*.parquet.tmp"):
            unfinished.unlink()
        seen = _Seen()
        for path in _named(self._folder):
            steps = steps_of(path) if is_whole(path) else np.zeros(0, np.int64)
            kept = seen.fresh(steps) & (steps < step)
            if not kept.any():
                path.unlink()
            elif not kept.all():
                write_part(path, read_part(path)[kept])
        self._next = None
        return map(read_part, _parts(self._folder))

    def _look(self) -> int:
        """Find the small parts at the end of the directory and return the next part number."""
        self._small, number = [], 0
        for path in _parts(self._folder):
            small = pq.read_metadata(path).num_rows < self._rows_per_part
            self._small = [*self._small, path] if small else []
            number = _number(path) + 1
        return number

    def _merge(self) -> None:
        """Merge the small parts at the end into the first of them."""
        first, *others = self._small
        merged = Window.concatenate([read_part(path) for path in self._small])
        _, once = np.unique(merged.steps, return_index=True)
        write_part(first, merged[np.sort(once)])
        for path in others:
            path.unlink()
        self._small = [first] if len(once) < self._rows_per_part else []


def read_parts(log_dir: str | Path) -> Iterator[Window]:
    """Yield the windows in the directory, oldest first, without duplicate steps."""
    seen, paths = _Seen(), _parts(Path(log_dir))
    while paths:
        try:
            window = read_part(paths.pop(0))
        except FileNotFoundError:
            # A run in progress has merged the part. `seen` skips the steps that were read.
            paths = _parts(Path(log_dir))
            continue
        fresh = seen.fresh(window.steps)
        if fresh.any():
            yield window if fresh.all() else window[fresh]


class _Seen:
    """Set of the train steps that were read."""

    def __init__(self) -> None:
        self._steps: list[np.ndarray] = []
        self._last = -1

    def fresh(self, steps: np.ndarray) -> np.ndarray:
        """Add steps and return which of them were not in the set, bool [steps]."""
        again = steps <= self._last
        if again.any():
            again = np.isin(steps, np.concatenate(self._steps))
        self._steps.append(steps)
        self._last = max(self._last, int(steps.max(initial=-1)))
        return ~again


def _parts(folder: Path) -> list[Path]:
    """Return the complete parts in the directory, by number."""
    return list(filter(is_whole, _named(folder)))


def _named(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*.parquet") if _PART.fullmatch(p.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("gradients-"))


def read_all_workers(log_dir: str | Path) -> Iterator[Window]:
    """Yield the chief's windows with the replica norms of all workers.

    Values that are equal on all replicas are the chief's. A step that another worker has not
    recorded, such as the last steps of a killed run, has the norms of the chief's replicas only.
    """
    others = [WorkerRows(read_parts(folder)) for folder in folders_of_others(log_dir).values()]
    for window in read_parts(log_dir):
        whole = join_replicas(window, [each.up_to(window) for each in others])
        if len(whole):
            yield whole
        rest = ~np.isin(window.steps, whole.steps)
        if rest.any():
            yield window if rest.all() else window[rest]


def join_replicas(window: Window, others: Sequence[Window]) -> Window:
    """Return the steps that all workers have recorded, with the replica norms of all workers.

    Args:
        window: steps of the chief.
        others: steps of each other worker; with none, the result is empty.
    """
    known = np.full(len(window), bool(others))
    for each in others:
        known &= np.isin(window.steps, each.steps)
    whole = window[known]
    norms = [whole.replica_norms, *(_norms_at(whole, each) for each in others)]
    return dataclasses.replace(whole, replica_norms=np.concatenate(norms, axis=1))


class WorkerRows:
    """Lazy reader of the parts of a worker other than the chief."""

    def __init__(self, parts: Iterator[Window]) -> None:
        self._parts = parts
        self._read = Window.concatenate([])

    def up_to(self, window: Window) -> Window:
        """Return the recorded steps from the first step of `window` to at least its last step.

        Call with windows in chronological order.
        """
        while not len(self._read) or self._read.steps[-1] < window.steps[-1]:
            part = next(self._parts, None)
            if part is None:
                break
            self._read = Window.concatenate([self._read, part])
        self._read = self._read[self._read.steps >= window.steps[0]]
        return self._read


def _norms_at(window: Window, worker: Window) -> np.ndarray:
    """Return a worker's replica norms at the window's steps, [steps, replicas, variables]."""
    columns = tuple(dict.fromkeys([*window.variables, *worker.variables]))
    rows = np.searchsorted(worker.steps, window.steps)
    return worker.with_variables(columns)[rows].replica_norms[:, :, : len(window.variables)]
