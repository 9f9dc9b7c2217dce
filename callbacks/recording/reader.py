"""Conversion of the ring buffers of all replicas to windows of train steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.recording.ring_buffer import MISSING, Ring
from gradkeeper.callbacks.recording.step_log import (
    MEASURED,
    MEASURED_ROW,
    OptimizerLog,
    ReplicaLog,
    by_variable,
    empty_row,
    of_step,
)
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.statistics.histogram import BINS, EDGES
from gradkeeper.callbacks.window import Window

_WEIGHTS = ("update_norm", "weight_norm")

# An optimizer, and the number of earlier calls in the same train step for the same variables.
Track: TypeAlias = tuple[keras.optimizers.Optimizer, int]

# Edges, [bins + 1], and counts between them, [bins].
Histogram: TypeAlias = tuple[np.ndarray, np.ndarray]


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
    logs: Mapping[int, ReplicaLog],
    order: Sequence[str],
    replicas_in_sync: int = 1,
    facts: RunFacts | None = None,
) -> Records | None:
    """Read and clear the logs of all replicas; return None if there is no new row.

    Args:
        logs: the log of each replica of this process; the first log numbers the steps.
        order: names of the model's variables, which become the first columns of the window.
        replicas_in_sync: number of replicas in all processes.
        facts: facts about the run.
    """
    replicas = sorted(logs)
    written = {replica: logs[replica].rows() for replica in replicas}
    steps = written[replicas[0]][1]
    for replica in replicas[1:]:  # after an exception, one may be a step ahead
        steps = np.intersect1d(steps, written[replica][1])
    if not len(steps):
        return None
    row_indices = {
        replica: row_indices[np.isin(at, steps)]
        for replica, (row_indices, at, _) in written.items()
    }
    # Each replica's loss is its share of the mean over the global batch. The losses of other
    # processes are unknown here; their mean is assumed to be the same.
    measured = {
        r: [_measured(optimizer_log, row_indices[r]) for optimizer_log in logs[r].optimizer_logs]
        for r in replicas
    }
    losses = [_loss(logs[r], row_indices[r], measured[r]) for r in replicas]
    loss = np.sum(losses, axis=0) * (replicas_in_sync / len(replicas))
    # Every replica creates its optimizer_logs in the same order.
    groups = zip(*(logs[replica].optimizer_logs for replica in replicas), strict=False)
    calls: list[Window] = []
    for group, rows in zip(groups, measured[replicas[0]], strict=False):
        part = _window(group[0], row_indices[replicas[0]], rows, steps, loss)
        if replicas_in_sync > 1:
            norms = _replica_norms(
                group, [row_indices[replica] for replica in replicas], part.present
            )
            part = dataclasses.replace(part, replica_norms=norms, first_replica=replicas[0])
        calls.append(part)
    calls = _without_undone(calls)
    tracks = _tracks(logs[replicas[0]].optimizer_logs, calls)
    window = dataclasses.replace(
        merged(list(tracks.values()), order),
        replica_losses=np.stack(losses, axis=1) if replicas_in_sync > 1 else np.zeros((0, 0)),
        calls=tuple(calls) if len(calls) > 1 else (),
        facts=facts or RunFacts(),
    )
    pictures = _histograms(logs[replicas[0]].optimizer_logs)
    for log in logs.values():
        log.clear()
    return Records(window, tracks, max(lost for _, _, lost in written.values()), pictures)


def _tracks(optimizer_logs: Sequence[OptimizerLog], calls: Sequence[Window]) -> dict[Track, Window]:
    """Return one window per optimizer and round, from the window of each optimizer_log's calls."""
    parts: dict[Track, list[Window]] = {}
    for optimizer_log, call in zip(optimizer_logs, calls, strict=False):
        parts.setdefault((optimizer_log.optimizer, optimizer_log.round), []).append(call)
    return {track: merged(windows) for track, windows in parts.items()}


def _without_undone(calls: Sequence[Window]) -> list[Window]:
    """Return the calls, with no gradients applied in steps that a guard skipped.

    If the guard skips one call of a step, the other calls are rolled back as well.
    """
    refused = np.any([call.scalar("allowed") == 0 for call in calls], axis=0)
    if len(calls) < 2 or not refused.any():
        return list(calls)
    return [
        dataclasses.replace(
            call,
            updated=call.updated & ~refused[:, np.newaxis],
            values={
                **call.values,
                "applied_norm": np.where(refused[:, np.newaxis], np.nan, call.applied_norms),
            },
            scalars={**call.scalars, "allowed": np.where(refused, 0.0, call.scalar("allowed"))},
        )
        for call in calls
    ]


def _loss(log: ReplicaLog, row_indices: np.ndarray, measured: Sequence[np.ndarray]) -> np.ndarray:
    """Return the loss of each step, [steps], from the log's own ring buffer or from the rows.

    The last loss of a step counts.

    Args:
        log: the log of the replica.
        row_indices: the row indices of the steps.
        measured: the rows by optimizer_log.
    """
    loss = _cells(log.loss, row_indices, 1)[:, 0]
    for rows in reversed(measured):
        loss = np.where(np.isnan(loss), of_step(rows, "loss"), loss)
    return loss


def _measured(optimizer_log: OptimizerLog, row_indices: np.ndarray) -> np.ndarray:
    """Return the rows of measured steps, or empty rows if there are none; see `row_of`."""
    ring = optimizer_log.rings.get(MEASURED_ROW)
    if ring is None:
        return np.tile(empty_row(len(optimizer_log.names)), (len(row_indices), 1))
    return ring.read(row_indices)


def _histograms(optimizer_logs: Sequence[OptimizerLog]) -> dict[int, dict[str, Histogram]]:
    """Return the latest histograms of each optimizer_log that have not been read before."""
    found: dict[int, dict[str, Histogram]] = {}
    for optimizer_log in optimizer_logs:
        row = (
            None
            if optimizer_log.histograms is None
            else optimizer_log.histograms.read(np.zeros(1, int))[0]
        )
        if row is None or row[0] == MISSING:
            continue
        counts = row[1:].reshape(BINS, len(optimizer_log.names)).T
        known = {
            n: (EDGES, c) for n, c in zip(optimizer_log.names, counts, strict=True) if c[0] >= 0
        }
        found.setdefault(int(row[0]), {}).update(known)
    return found


def _window(
    optimizer_log: OptimizerLog,
    row_indices: np.ndarray,
    rows: np.ndarray,
    steps: np.ndarray,
    loss: np.ndarray,
) -> Window:
    """Return the window of the first replica's optimizer_log and its rows of measured steps."""
    width = len(optimizer_log.names)

    def column(name: str) -> np.ndarray:
        return _cells(optimizer_log.rings.get(name), row_indices, width)

    values = by_variable(rows)
    present = values["norm"] != MISSING
    values["applied_norm"] = (
        values["norm"] if optimizer_log.applies_all else _applied(optimizer_log, row_indices, width)
    )
    refused = _cells(optimizer_log.rings.get("allowed"), row_indices, 1) == 0
    updated = present & (values["applied_norm"] != MISSING) & ~refused
    values |= {name: column(name) for name in _WEIGHTS if name in optimizer_log.rings}
    there = {name: present if name in MEASURED else updated for name in values}
    scalars = {
        "learning_rate": of_step(rows, "learning_rate"),
        "loss_scale": _cells(optimizer_log.rings.get("loss_scale"), row_indices, 1)[:, 0],
        "unclipped_norm": _unclipped(optimizer_log, row_indices),
    }
    if "allowed" in optimizer_log.rings:
        scalars["allowed"] = _cells(optimizer_log.rings["allowed"], row_indices, 1)[:, 0]
    if optimizer_log.lacks_loss_scaling:
        scalars["missing_loss_scale"] = scalars["loss_scale"]
    limit = np.nan if optimizer_log.clip_limit is None else optimizer_log.clip_limit
    return Window(
        steps,
        optimizer_log.names,
        present,
        updated,
        {name: np.where(there[name], value, np.nan) for name, value in values.items()},
        {"loss": loss, "clip_limit": np.full(len(steps), limit), **scalars},
    )


def _replica_norms(
    optimizer_logs: Sequence[OptimizerLog], row_indices: Sequence[np.ndarray], present: np.ndarray
) -> np.ndarray:
    """Return the norms of each replica's own gradient, [steps, replicas, variables]."""
    width = len(optimizer_logs[0].names)
    norms = [
        np.where(present, _cells(each.rings.get("replica_norm"), at, width), np.nan)
        for each, at in zip(optimizer_logs, row_indices, strict=True)
    ]
    return np.stack(norms, axis=1)


def _applied(optimizer_log: OptimizerLog, row_indices: np.ndarray, width: int) -> np.ndarray:
    """Return the applied norms, [steps, variables], each from the clipping call of its variable."""
    applied = np.full((len(row_indices), width), MISSING)
    for name, ring in optimizer_log.rings.items():
        if name.startswith("applied_norm"):
            part = ring.read(row_indices)
            applied = np.where(part == MISSING, applied, part)
    return applied


def _unclipped(optimizer_log: OptimizerLog, row_indices: np.ndarray) -> np.ndarray:
    """Return the norm over all gradients before clipping, [steps]; NaN if not recorded."""
    parts = [
        ring.read(row_indices)[:, 0]
        for name, ring in optimizer_log.rings.items()
        if name.startswith("unclipped_norm")
    ]
    if not parts:
        return np.full(len(row_indices), np.nan)
    written = ~np.isnan(parts).all(axis=0)
    return np.where(written, np.sqrt(np.nansum(np.square(parts), axis=0)), np.nan)


def _cells(ring: Ring | None, row_indices: np.ndarray, width: int) -> np.ndarray:
    """Return the rows at these indices, [row_indices, width]; NaN or `MISSING` without a ring buffer."""
    if ring is None:
        return np.full((len(row_indices), width), MISSING if width > 1 else np.nan)
    return ring.read(row_indices)


def merged(windows: Sequence[Window], order: Sequence[str] = ()) -> Window:
    """Merge windows of the same steps; the first columns are those in `order`.

    If a variable's gradient is applied several times in a step, the largest statistic counts.
    """
    names = tuple(dict.fromkeys([*order, *(name for each in windows for name in each.variables)]))
    merged, *others = (window.with_variables(names) for window in windows)
    for other in others:
        merged = Window(
            merged.steps,
            names,
            merged.present | other.present,
            merged.updated | other.updated,
            {
                name: _larger(merged.value(name), other.value(name), *_owners(name, merged, other))
                for name in {**merged.values, **other.values}
            },
            {
                name: np.where(
                    np.isnan(merged.scalar(name)), other.scalar(name), merged.scalar(name)
                )
                for name in {**merged.scalars, **other.scalars}
            },
            _larger(
                merged.replica_norms,
                other.replica_norms,
                merged.present[:, np.newaxis],
                other.present[:, np.newaxis],
            ),
            merged.first_replica,
        )
    return merged


def _owners(name: str, one: Window, other: Window) -> tuple[np.ndarray, np.ndarray]:
    if name in MEASURED:
        return one.present, other.present
    return one.updated, other.updated


def _larger(
    one: np.ndarray, other: np.ndarray, one_there: np.ndarray, other_there: np.ndarray
) -> np.ndarray:
    """Return the larger value if both exist, with NaN as the largest; else the one that exists."""
    both = np.where(one_there & other_there, np.maximum(one, other), other)
    return np.where(one_there & ~other_there, one, both)
