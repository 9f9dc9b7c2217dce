"""Parquet parts: one window per file.

A part has one row per train step. Its columns are `step` (int64), `present` and `updated` (lists
of bool, one item per variable), the statistics per variable (`norm`, `applied_norm`, ...; lists of
float), the statistics per step (`loss`, ...; float64), and with several replicas `replica_norms`
(lists of replicas x variables floats). The schema's metadata contains the variable paths and the
index of the first replica; pandas reads the paths as `attrs["variables"]`.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradkeeper.callbacks.window import Window

_VARIABLES = b"gradkeeper.variables"
_FIRST_REPLICA = b"gradkeeper.first_replica"
# Metadata key that pandas reads as the `attrs` of a data frame.
_PANDAS = b"PANDAS_ATTRS"
_OWN = ("step", "present", "updated", "replica_norms")
# Last bytes of a Parquet file; the writer adds them after all other data.
_END = b"PAR1"


def write_part(path: Path, window: Window) -> None:
    """Write the window to a part; the file appears only when it is complete."""
    lists = {"present": window.present, "updated": window.updated, **window.values}
    lists["replica_norms"] = window.replica_norms
    columns = {"step": pa.array(window.steps)}
    # Arrow does not support fixed-size lists of length 0.
    columns |= {name: _lists(value) for name, value in lists.items() if value.size}
    columns |= {name: pa.array(value) for name, value in window.scalars.items()}
    metadata = {
        _VARIABLES: json.dumps(window.variables),
        _PANDAS: json.dumps({"variables": window.variables}),
        _FIRST_REPLICA: str(window.first_replica),
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
    variables = tuple(json.loads(table.schema.metadata[_VARIABLES]))
    first = int(table.schema.metadata.get(_FIRST_REPLICA, 0))
    rows, width = table.num_rows, len(variables)
    lists, scalars = {}, {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            lists[name] = column.flatten().to_numpy(zero_copy_only=False)
        else:
            scalars[name] = column.to_numpy(zero_copy_only=False)
    matrices = {name: value.reshape(rows, -1, width) for name, value in lists.items()}
    present, updated = (
        matrices[flag][:, 0] if flag in matrices else np.zeros((rows, width), bool)
        for flag in ("present", "updated")
    )
    values = {name: value[:, 0] for name, value in matrices.items() if name not in _OWN}
    if "nonfinite" not in values and "norm" in values:
        # The first format has no element counts; a non-finite norm has at least one element.
        values["nonfinite"] = (present & ~np.isfinite(values["norm"])).astype(np.float32)
    replicas = matrices.get("replica_norms", np.zeros((0, 0, 0), np.float32))
    steps = scalars.pop("step")
    return Window(steps, variables, present, updated, values, scalars, replicas, first)


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
