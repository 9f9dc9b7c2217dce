"""Conversion of the ring buffers of all replicas to windows of train steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.tap.histogram import BINS, EDGES
from gradkeeper.callbacks.tap.lane import MEASURED_ROW, Lane, Table
from gradkeeper.callbacks.tap.ring import MISSING, Ring
from gradkeeper.callbacks.tap.row import MEASURED, by_variable, empty_row, of_step
from gradkeeper.callbacks.window import Window

_WEIGHTS = ("update_norm", "weight_norm")

# An optimizer, and the number of earlier calls in the same train step for the same variables.
Track: TypeAlias = tuple[keras.optimizers.Optimizer, int]

# Edges, [bins + 1], and counts between them, [bins].
Histogram: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Readout:
    """Records of one read.

    Attributes:
        window: the window of all variables; steps are counted from the recorder's first step.
        tracks: one window per optimizer and turn, with the variables of these calls only.
        lost: number of rows that were overwritten before they were read.
        histograms: edges (log10 of the magnitude) and counts, by train step and variable.
    """

    window: Window
    tracks: dict[Track, Window]
    lost: int
    histograms: dict[int, dict[str, Histogram]]


def read(
    lanes: Mapping[int, Lane],
    order: Sequence[str],
    replicas_in_sync: int = 1,
    facts: RunFacts | None = None,
) -> Readout | None:
    """Read and clear the logs of all replicas; return None if there is no new row.

    Args:
        lanes: the log of each replica of this process; the first log numbers the steps.
        order: names of the model's variables, which become the first columns of the window.
        replicas_in_sync: number of replicas in all processes.
        facts: facts about the run.
    """
    replicas = sorted(lanes)
    written = {replica: lanes[replica].rows() for replica in replicas}
    steps = written[replicas[0]][1]
    for replica in replicas[1:]:  # after an exception, one may be a step ahead
        steps = np.intersect1d(steps, written[replica][1])
    if not len(steps):
        return None
    slots = {replica: slots[np.isin(at, steps)] for replica, (slots, at, _) in written.items()}
    # Each replica's loss is its share of the mean over the global batch. The losses of other
    # processes are unknown here; their mean is assumed to be the same.
    measured = {r: [_measured(table, slots[r]) for table in lanes[r].tables] for r in replicas}
    losses = [_loss(lanes[r], slots[r], measured[r]) for r in replicas]
    loss = np.sum(losses, axis=0) * (replicas_in_sync / len(replicas))
    # Every replica creates its tables in the same order.
    groups = zip(*(lanes[replica].tables for replica in replicas), strict=False)
    calls: list[Window] = []
    for group, rows in zip(groups, measured[replicas[0]], strict=False):
        part = _window(group[0], slots[replicas[0]], rows, steps, loss)
        if replicas_in_sync > 1:
            norms = _replica_norms(group, [slots[replica] for replica in replicas], part.present)
            part = dataclasses.replace(part, replica_norms=norms, first_replica=replicas[0])
        calls.append(part)
    calls = _without_undone(calls)
    tracks = _tracks(lanes[replicas[0]].tables, calls)
    window = dataclasses.replace(
        merged(list(tracks.values()), order),
        replica_losses=np.stack(losses, axis=1) if replicas_in_sync > 1 else np.zeros((0, 0)),
        calls=tuple(calls) if len(calls) > 1 else (),
        facts=facts or RunFacts(),
    )
    pictures = _histograms(lanes[replicas[0]].tables)
    for lane in lanes.values():
        lane.clear()
    return Readout(window, tracks, max(lost for _, _, lost in written.values()), pictures)


def _tracks(tables: Sequence[Table], calls: Sequence[Window]) -> dict[Track, Window]:
    """Return one window per optimizer and turn, from the window of each table's calls."""
    parts: dict[Track, list[Window]] = {}
    for table, call in zip(tables, calls, strict=False):
        parts.setdefault((table.optimizer, table.turn), []).append(call)
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


def _loss(lane: Lane, slots: np.ndarray, measured: Sequence[np.ndarray]) -> np.ndarray:
    """Return the loss of each step, [steps], from the log's own ring buffer or from the rows.

    The last loss of a step counts.

    Args:
        lane: the log of the replica.
        slots: the row indices of the steps.
        measured: the rows by table.
    """
    loss = _cells(lane.loss, slots, 1)[:, 0]
    for rows in reversed(measured):
        loss = np.where(np.isnan(loss), of_step(rows, "loss"), loss)
    return loss


def _measured(table: Table, slots: np.ndarray) -> np.ndarray:
    """Return the rows of measured steps, or empty rows if there are none; see `row_of`."""
    ring = table.rings.get(MEASURED_ROW)
    if ring is None:
        return np.tile(empty_row(len(table.names)), (len(slots), 1))
    return ring.read(slots)


def _histograms(tables: Sequence[Table]) -> dict[int, dict[str, Histogram]]:
    """Return the latest histograms of each table that have not been read before."""
    found: dict[int, dict[str, Histogram]] = {}
    for table in tables:
        row = None if table.histograms is None else table.histograms.read(np.zeros(1, int))[0]
        if row is None or row[0] == MISSING:
            continue
        counts = row[1:].reshape(BINS, len(table.names)).T
        known = {n: (EDGES, c) for n, c in zip(table.names, counts, strict=True) if c[0] >= 0}
        found.setdefault(int(row[0]), {}).update(known)
    return found


def _window(
    table: Table, slots: np.ndarray, rows: np.ndarray, steps: np.ndarray, loss: np.ndarray
) -> Window:
    """Return the window of the first replica's table and its rows of measured steps."""
    width = len(table.names)

    def column(name: str) -> np.ndarray:
        return _cells(table.rings.get(name), slots, width)

    values = by_variable(rows)
    present = values["norm"] != MISSING
    values["applied_norm"] = values["norm"] if table.applies_all else _applied(table, slots, width)
    refused = _cells(table.rings.get("allowed"), slots, 1) == 0
    updated = present & (values["applied_norm"] != MISSING) & ~refused
    values |= {name: column(name) for name in _WEIGHTS if name in table.rings}
    there = {name: present if name in MEASURED else updated for name in values}
    scalars = {
        "learning_rate": of_step(rows, "learning_rate"),
        "loss_scale": _cells(table.rings.get("loss_scale"), slots, 1)[:, 0],
        "unclipped_norm": _unclipped(table, slots),
    }
    if "allowed" in table.rings:
        scalars["allowed"] = _cells(table.rings["allowed"], slots, 1)[:, 0]
    if table.misses_scale:
        scalars["missing_loss_scale"] = scalars["loss_scale"]
    limit = np.nan if table.clip_limit is None else table.clip_limit
    return Window(
        steps,
        table.names,
        present,
        updated,
        {name: np.where(there[name], value, np.nan) for name, value in values.items()},
        {"loss": loss, "clip_limit": np.full(len(steps), limit), **scalars},
    )


def _replica_norms(
    tables: Sequence[Table], slots: Sequence[np.ndarray], present: np.ndarray
) -> np.ndarray:
    """Return the norms of each replica's own gradient, [steps, replicas, variables]."""
    width = len(tables[0].names)
    norms = [
        np.where(present, _cells(each.rings.get("replica_norm"), at, width), np.nan)
        for each, at in zip(tables, slots, strict=True)
    ]
    return np.stack(norms, axis=1)


def _applied(table: Table, slots: np.ndarray, width: int) -> np.ndarray:
    """Return the applied norms, [steps, variables], each from the clipping call of its variable."""
    applied = np.full((len(slots), width), MISSING)
    for name, ring in table.rings.items():
        if name.startswith("applied_norm"):
            part = ring.read(slots)
            applied = np.where(part == MISSING, applied, part)
    return applied


def _unclipped(table: Table, slots: np.ndarray) -> np.ndarray:
    """Return the norm over all gradients before clipping, [steps]; NaN if not recorded."""
    parts = [
        ring.read(slots)[:, 0]
        for name, ring in table.rings.items()
        if name.startswith("unclipped_norm")
    ]
    if not parts:
        return np.full(len(slots), np.nan)
    written = ~np.isnan(parts).all(axis=0)
    return np.where(written, np.sqrt(np.nansum(np.square(parts), axis=0)), np.nan)


def _cells(ring: Ring | None, slots: np.ndarray, width: int) -> np.ndarray:
    """Return the rows at these indices, [slots, width]; NaN or `MISSING` without a ring buffer."""
    if ring is None:
        return np.full((len(slots), width), MISSING if width > 1 else np.nan)
    return ring.read(slots)


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
