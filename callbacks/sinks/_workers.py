"""The parts of several workers, put together."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gradkeeper.callbacks.sinks.parquet import read_parts
from gradkeeper.callbacks.window import Window
from gradkeeper.callbacks.workers import folders_of_others


def read_all_workers(log_dir: str | Path) -> Iterator[Window]:
    """The chief's windows, with the norms of all workers' replicas where all have recorded them.

    What all replicas have alike is the chief's. A step that a worker lacks, as the last ones
    after a kill may be, has the chief's replicas only.
    """
    others = [_Worker(read_parts(folder)) for folder in folders_of_others(log_dir).values()]
    for window in read_parts(log_dir):
        read = [each.up_to(window) for each in others]
        known = np.all([np.isin(window.steps, each.steps) for each in read], axis=0)
        if not read or not known.any():
            yield window
            continue
        whole = window[known]
        norms = [whole.replica_norms, *(_norms_at(whole, each) for each in read)]
        yield dataclasses.replace(whole, replica_norms=np.concatenate(norms, axis=1))
        if not known.all():
            yield window[~known]


class _Worker:
    """What a worker other than the chief has recorded, read as far as it is asked for."""

    def __init__(self, parts: Iterator[Window]) -> None:
        self._parts = parts
        self._read = Window.concatenate([])

    def up_to(self, window: Window) -> Window:
        """What it has recorded from the window's first step on to its last, or beyond.

        Windows are asked for in their order.
        """
        while not len(self._read) or self._read.steps[-1] < window.steps[-1]:
            part = next(self._parts, None)
            if part is None:
                break
            self._read = Window.concatenate([self._read, part])
        self._read = self._read[self._read.steps >= window.steps[0]]
        return self._read


def _norms_at(window: Window, worker: Window) -> np.ndarray:
    """The norms of a worker's replicas at the window's steps, [steps, replicas, variables]."""
    columns = tuple(dict.fromkeys([*window.variables, *worker.variables]))
    rows = np.searchsorted(worker.steps, window.steps)
    return worker.with_variables(columns)[rows].replica_norms[:, :, : len(window.variables)]
