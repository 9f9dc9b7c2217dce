"""Running statistics over train steps."""

from collections.abc import Sequence

import numpy as np


class Recent:
    """Buffer of the last values of a series that returns the history of each added value."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._values = np.zeros(0)

    def before(self, values: np.ndarray) -> np.ndarray:
        """Add values and return the preceding values of each, float [values, memory].

        Columns are in chronological order. Missing values are NaN.
        """
        series = np.concatenate([self._values, values])
        padded = np.concatenate([np.full(self._memory, np.nan), series])
        self._values = series[-self._memory :]
        every = np.lib.stride_tricks.sliding_window_view(padded, self._memory)
        return every[len(series) - len(values) : len(series)]

    def through(self, values: np.ndarray) -> np.ndarray:
        """Return the same as `before`, with the added value itself in the last column."""
        return np.concatenate([self.before(values)[:, 1:], values[:, None]], axis=1)


def row_quantiles(rows: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each row without its NaNs, [rows]; NaN for a row of NaNs."""
    ordered = np.sort(rows, axis=1)
    last = np.maximum((~np.isnan(rows)).sum(axis=1) - 1, 0)
    place = share * last
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, last)
    each = np.arange(len(rows))
    low, high = ordered[each, below], ordered[each, above]
    return low + (place - below) * (high - low)


def finite_or_none(value: float) -> float | None:
    """Return a number for the evidence of a finding."""
    return float(value) if np.isfinite(value) else None


class Streaks:
    """Counter, for each name, of the consecutive rows in which a condition holds."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}
        self._starts: dict[str, int] = {}

    def follow(
        self,
        names: Sequence[str],
        steps: np.ndarray,
        holds: np.ndarray,
        counted: np.ndarray | bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Continue the streaks with the next rows.

        Args:
            names: name of each column.
            steps: train step of each row, [rows].
            holds: True where the condition holds, bool [rows, names].
            counted: False where the row neither extends nor ends a streak, bool [rows, names].

        Returns:
            Length of the streak at each row, int [rows, names], and the train step at which the
            streak began, int [rows, names]. The step is undefined where the length is 0.
        """
        if not len(steps):
            return np.zeros((0, len(names)), np.int64), np.zeros((0, len(names)), np.int64)
        adds, breaks = holds & counted, ~holds & counted
        total = np.cumsum(adds, axis=0)
        before_break = np.maximum.accumulate(np.where(breaks, total, 0), axis=0)
        carried = np.array([self._lengths.get(name, 0) for name in names], np.int64)
        unbroken = ~np.logical_or.accumulate(breaks, axis=0)
        lengths = total - before_break + np.where(unbroken, carried, 0)

        start_rows = np.where(adds & (lengths == 1), np.arange(len(steps))[:, None], -1)
        start_rows = np.maximum.accumulate(start_rows, axis=0)
        known = np.array([self._starts.get(name, 0) for name in names], np.int64)
        starts = np.where(start_rows >= 0, steps[start_rows], known)

        self._lengths.update(zip(names, lengths[-1].tolist(), strict=True))
        self._starts.update(zip(names, starts[-1].tolist(), strict=True))
        return lengths, starts


class FirstLevel:
    """Median of the first `least` values of a run, or of fewer values at its start."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._values: list[float] = []

    def follow(self, values: np.ndarray) -> np.ndarray:
        """Return the median before each of the values, [values]; NaN before the first value."""
        levels = np.empty(len(values))
        for row, value in enumerate(values.tolist()):
            if len(self._values) == self._least:
                levels[row:] = np.median(self._values)
                break
            levels[row] = np.median(self._values) if self._values else np.nan
            if not np.isnan(value):
                self._values.append(value)
        return levels


_SHORT = 10
_SHORT_SEEN = 5


class UsualNorm:
    """Running levels of the global norm of a run.

    Args:
        memory: number of steps in the running median.
        warmup: number of steps before the levels are known.
    """

    def __init__(self, *, memory: int, warmup: int) -> None:
        self._warmup = warmup
        self._long = Recent(memory)
        self._short = Recent(_SHORT)
        self._peak = 0.0
        self._seen = 0

    def follow(self, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the levels before each of these finite norms; NaN where too few precede it.

        Returns:
            Running median of the norm, [steps], and the largest median over ten consecutive steps
            in the run so far, [steps]. A converged run returns to the latter from time to time.
        """
        seen = self._seen + np.arange(len(norms))
        short = row_quantiles(self._short.before(norms), 0.5)
        peak = np.maximum.accumulate(np.where(seen >= _SHORT_SEEN, short, 0.0))
        peak = np.maximum(peak, self._peak)
        median = row_quantiles(self._long.before(norms), 0.5)
        if len(norms):
            self._peak, self._seen = float(peak[-1]), int(seen[-1]) + 1
        known = seen >= self._warmup
        return np.where(known, median, np.nan), np.where(known, peak, np.nan)
