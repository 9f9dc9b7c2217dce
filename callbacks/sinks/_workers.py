"""Merging of the Parquet parts of several workers."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gradkeeper.callbacks.sinks.parquet import read_parts
from gradkeeper.callbacks.window import Window
from gradkeeper.callbacks.workers import folders_of_others


def read_all_workers(log_dir: str | Path) -> Iterator[Window]:
    """Yield the chief's windows with the replica norms of all workers.

    Values that are equal on all replicas are the chief's. A step that another worker has not
    recorded, such as the last steps of a killed run, has the norms of the chief's replicas only.
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
