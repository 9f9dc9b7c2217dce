"""Conversion of the logs of all replicas to windows of train steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.activations import Activations
from gradkeeper.callbacks.measurements.registry import MEASUREMENTS, Measurement
from gradkeeper.callbacks.recording.rows import (
    MEASURED,
    MISSING,
    CallLog,
    CallLogs,
    Column,
    Rows,
    by_variable,
    empty_row,
    of_step,
)
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import BINS, EDGES, Histogram, Window

# An optimizer, and the number of earlier calls in the same train step for the same variables.
Track: TypeAlias = tuple[keras.optimizers.Optimizer, int]


@dataclass(frozen=True)
class Records:
    """Records of one read.

    Attributes:
        window: the window of all variables; steps are counted from the recorder's first step.
        by_optimizer: one window per optimizer and round, with the variables of these calls only.
        lost: number of rows that were overwritten before they were read.
        histograms: edges (log10 of the magnitude) and counts, by train step and variable.
    """

    window: Window
    by_optimizer: dict[Track, Window]
    lost: int
    histograms: dict[int, dict[str, Histogram]]


def collect(
    logs: Mapping[int, CallLogs],
    rows: Rows,
    *,
    order: Sequence[str],
    measurements: Sequence[Measurement] = (),
    replicas_in_sync: int = 1,
    facts: RunFacts | None = None,
    activations: Activations | None = None,
) -> Records:
    """Return the records of some rows of all replicas.

    Args:
        logs: the log of each replica of this process.
        rows: the rows.
        order: names of the model's variables, which become the first columns of the window.
        measurements: the measurements that were recorded.
        replicas_in_sync: number of replicas in all processes.
        facts: facts about the run.
        activations: the statistics of the layer outputs; None if not measured.
    """
    replicas = sorted(logs)
    measured = {
        replica: [_measured(each, rows.indices) for each in logs[replica].optimizer_logs]
        for replica in replicas
    }
    # Each replica's loss is its share of the mean over the global batch. The losses of other
    # processes are unknown here; their mean is assumed to be the same.
    losses = [_loss(logs[replica], rows.indices, measured[replica]) for replica in replicas]
    loss = np.sum(losses, axis=0) * (replicas_in_sync / len(replicas))
    # Every replica creates its optimizer logs in the same order.
    groups = zip(*(logs[replica].optimizer_logs for replica in replicas), strict=False)
    calls: list[Window] = []
    for group, measured_rows in zip(groups, measured[replicas[0]], strict=False):
        part = _window(group[0], rows, measured_rows, loss, measurements)
        if replicas_in_sync > 1:
            norms = _replica_norms(group, rows.indices, part.present)
            part = dataclasses.replace(part, replica_norms=norms, first_replica=replicas[0])
        calls.append(part)
    calls = _without_undone(calls)
    rounds: dict[Track, list[Window]] = {}
    for optimizer_log, call in zip(logs[replicas[0]].optimizer_logs, calls, strict=False):
        rounds.setdefault((optimizer_log.optimizer, optimizer_log.round), []).append(call)
    by_optimizer = {track: merged(windows) for track, windows in rounds.items()}
    window = dataclasses.replace(
        merged(list(by_optimizer.values()), order),
        replica_losses=np.stack(losses, axis=1) if replicas_in_sync > 1 else np.zeros((0, 0)),
        calls=tuple(calls) if len(calls) > 1 else (),
        facts=facts or RunFacts(),
        activations=activations or Activations(),
    )
    histograms = _histograms(logs[replicas[0]].optimizer_logs)
    return Records(window, by_optimizer, rows.lost, histograms)


def _without_undone(calls: Sequence[Window]) -> list[Window]:
    """Return the calls, with no gradients applied in steps that a guard skipped.

    If the guard skips one call of a step, the other calls are rolled back as well.
    """
    refused = np.any([call.scalar("allowed") == 0 for call in calls], axis=0)
    if len(calls) < 2 or not refused.any():
        return list(calls)
    rows = refused[:, np.newaxis]
    return [
        dataclasses.replace(
            call,
            updated=call.updated & ~rows,
            values={**call.values, "applied_norm": np.where(rows, np.nan, call.applied_norms)},
            scalars={**call.scalars, "allowed": np.where(refused, 0.0, call.scalar("allowed"))},
        )
        for call in calls
    ]


def _loss(log: CallLogs, row_indices: np.ndarray, measured: Sequence[np.ndarray]) -> np.ndarray:
    """Return the loss of each step, [steps], from the log's own ring buffer or from the rows.

    The last loss of a step counts. `measured` holds the rows of each optimizer log.
    """
    loss = _cells(log.loss, row_indices, 1)[:, 0]
    for rows in reversed(measured):
        loss = np.where(np.isnan(loss), of_step(rows, "loss"), loss)
    return loss


def _measured(optimizer_log: CallLog, row_indices: np.ndarray) -> np.ndarray:
    """Return the rows of measured steps, or empty rows if there are none; see `row_of`."""
    ring = optimizer_log.rings.get("measured")
    if ring is None:
        return np.tile(empty_row(len(optimizer_log.names)), (len(row_indices), 1))
    return ring.read(row_indices)


def _histograms(optimizer_logs: Sequence[CallLog]) -> dict[int, dict[str, Histogram]]:
    """Return the latest histograms of each optimizer log that have not been read before."""
    found: dict[int, dict[str, Histogram]] = {}
    for optimizer_log in optimizer_logs:
        ring = optimizer_log.rings.get("histograms")
        row = None if ring is None else ring.read(np.zeros(1, int))[0]
        if row is None or row[0] == MISSING:
            continue
        names = optimizer_log.names
        counts = row[1:].reshape(BINS, len(names)).T
        known = {n: (EDGES, c) for n, c in zip(names, counts, strict=True) if c[0] >= 0}
        found.setdefault(int(row[0]), {}).update(known)
    return found


def _window(
    optimizer_log: CallLog,
    rows: Rows,
    measured: np.ndarray,
    loss: np.ndarray,
    measurements: Sequence[Measurement],
) -> Window:
    """Return the window of an optimizer log of the first replica.

    `measured` holds the rows of measured steps; see `row_of`.
    """
    rings, width = optimizer_log.rings, len(optimizer_log.names)
    values = by_variable(measured)
    present = values["norm"] != MISSING
    applied = values["norm"]
    if not optimizer_log.applies_all:
        applied = _applied(optimizer_log, rows.indices, width)
    allowed = _cells(rings.get("allowed"), rows.indices, 1)[:, 0]
    updated = present & (applied != MISSING) & (allowed != 0)[:, np.newaxis]
    values = {name: np.where(present, value, np.nan) for name, value in values.items()}
    values["applied_norm"] = np.where(updated, applied, np.nan)
    for each in measurements:
        if each.name in rings:
            there = present if each.event == "gradients" else updated
            values[each.name] = np.where(there, rings[each.name].read(rows.indices), np.nan)
    limit = np.nan if optimizer_log.clip_limit is None else optimizer_log.clip_limit
    scalars = {
        "loss": loss,
        "clip_limit": np.full(len(loss), limit),
        "learning_rate": of_step(measured, "learning_rate"),
        "loss_scale": _cells(rings.get("loss_scale"), rows.indices, 1)[:, 0],
        "unclipped_norm": _unclipped(optimizer_log, rows.indices),
    }
    if "allowed" in rings:
        scalars["allowed"] = allowed
    if optimizer_log.lacks_loss_scaling:
        scalars["missing_loss_scale"] = scalars["loss_scale"]
    return Window(rows.steps, optimizer_log.names, present, updated, values, scalars)


def _replica_norms(
    optimizer_logs: Sequence[CallLog], row_indices: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Return the norms of each replica's own gradient, [steps, replicas, variables]."""
    width = present.shape[1]
    rings = [each.rings.get("replica_norm") for each in optimizer_logs]
    norms = [np.where(present, _cells(ring, row_indices, width), np.nan) for ring in rings]
    return np.stack(norms, axis=1)


def _applied(optimizer_log: CallLog, row_indices: np.ndarray, width: int) -> np.ndarray:
    """Return the applied norms, [steps, variables], each from the clipping call of its variable."""
    applied = np.full((len(row_indices), width), MISSING)
    for ring in _rings(optimizer_log, "applied_norm"):
        part = ring.read(row_indices)
        applied = np.where(part == MISSING, applied, part)
    return applied


def _unclipped(optimizer_log: CallLog, row_indices: np.ndarray) -> np.ndarray:
    """Return the norm over all gradients before clipping, [steps]; NaN if not recorded."""
    rings = _rings(optimizer_log, "unclipped_norm")
    parts = [ring.read(row_indices)[:, 0] for ring in rings]
    if not parts:
        return np.full(len(row_indices), np.nan)
    written = ~np.isnan(parts).all(axis=0)
    return np.where(written, np.sqrt(np.nansum(np.square(parts), axis=0)), np.nan)


def _rings(optimizer_log: CallLog, name: str) -> list[Column]:
    """Return the ring buffers of this statistic, one for each clipping call."""
    return [ring for key, ring in optimizer_log.rings.items() if key.startswith(name)]


def _cells(ring: Column | None, row_indices: np.ndarray, width: int) -> np.ndarray:
    """Return the rows, [rows, width]; NaN or `MISSING` without a ring buffer."""
    if ring is None:
        return np.full((len(row_indices), width), MISSING if width > 1 else np.nan)
    return ring.read(row_indices)


def merged(windows: Sequence[Window], order: Sequence[str] = ()) -> Window:
    """Merge windows of the same steps; the first columns are those in `order`.

    If a variable's gradient is applied several times in a step, the largest statistic counts.
    """
    names = tuple(dict.fromkeys([*order, *(name for each in windows for name in each.variables)]))
    return reduce(_merged_pair, (window.with_variables(names) for window in windows))


def _merged_pair(one: Window, other: Window) -> Window:
    """Merge two windows of the same steps and variables."""
    values = {
        name: _larger(one.value(name), other.value(name), *_owners(name, one, other))
        for name in {**one.values, **other.values}
    }
    scalars = {
        name: np.where(np.isnan(one.scalar(name)), other.scalar(name), one.scalar(name))
        for name in {**one.scalars, **other.scalars}
    }
    there = one.present[:, np.newaxis], other.present[:, np.newaxis]
    return Window(
        one.steps,
        one.variables,
        one.present | other.present,
        one.updated | other.updated,
        values,
        scalars,
        _larger(one.replica_norms, other.replica_norms, *there),
        one.first_replica,
    )


def _owners(name: str, one: Window, other: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return where each of two windows has the statistic, [steps, variables]."""
    if name in MEASURED:
        return one.present, other.present
    if name == "applied_norm" or (name in MEASUREMENTS and MEASUREMENTS[name].event == "update"):
        return one.updated, other.updated
    return ~np.isnan(one.value(name)), ~np.isnan(other.value(name))


def _larger(
    one: np.ndarray, other: np.ndarray, one_there: np.ndarray, other_there: np.ndarray
) -> np.ndarray:
    """Return the larger value if both exist, with NaN as the largest; else the one that exists."""
    both = np.where(one_there & other_there, np.maximum(one, other), other)
    return np.where(one_there & ~other_there, one, both)
