"""Lengths of consecutive rows in which a condition holds, by name and across windows."""

from collections.abc import Sequence

import numpy as np


class Streaks:
    """Counter, for each name, of the consecutive rows in which a condition holds."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}
        self._starts: dict[str, int] = {}

    def clear(self) -> None:
        """Remove all streaks."""
        self._lengths.clear()
        self._starts.clear()

    def follow(
        self,
        names: Sequence[str],
        steps: np.ndarray,
        holds: np.ndarray,
        counted: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Continue the streaks with the next rows.

        Args:
            names: name of each column.
            steps: train step of each row, [rows].
            holds: True where the condition holds, bool [rows, names].
            counted: False where the row neither extends nor ends a streak, bool
                [rows, names]; None to count all rows.

        Returns:
            Length of the streak at each row, int [rows, names], and the train step at which the
            streak began, int [rows, names]. The step is undefined where the length is 0.
        """
        if not len(steps):
            return np.zeros((0, len(names)), np.int64), np.zeros((0, len(names)), np.int64)
        adds, breaks = holds, ~holds
        if counted is not None:
            adds, breaks = holds & counted, ~holds & counted
        total = np.cumsum(adds, axis=0)
        before_break = np.maximum.accumulate(np.where(breaks, total, 0), axis=0)
        carried = np.array([self._lengths.get(name, 0) for name in names], np.int64)
        unbroken = ~np.logical_or.accumulate(breaks, axis=0)
        lengths = total - before_break + np.where(unbroken, carried, 0)

        row_numbers = np.arange(len(steps))[:, None]
        start_rows = np.where(adds & (lengths == 1), row_numbers, -1)
        start_rows = np.maximum.accumulate(start_rows, axis=0)
        known = np.array([self._starts.get(name, 0) for name in names], np.int64)
        starts = np.where(start_rows >= 0, steps[start_rows], known)

        self._lengths.update(zip(names, lengths[-1].tolist(), strict=True))
        self._starts.update(zip(names, starts[-1].tolist(), strict=True))
        return lengths, starts
