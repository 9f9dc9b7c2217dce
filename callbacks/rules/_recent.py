"""Last values of a series, across windows."""

import numpy as np


class Recent:
    """Buffer of the last values of a series that returns the history of each added value."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._values = np.zeros(0)

    def clear(self) -> None:
        """Remove all values."""
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
        if not len(values):
            return np.zeros((0, self._memory))
        return np.concatenate([self.before(values)[:, 1:], values[:, None]], axis=1)


def row_quantiles(rows: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each row without its NaNs, [rows]; NaN for a row of NaNs."""
    ordered = np.sort(rows, axis=1)
    last = (~np.isnan(rows)).sum(axis=1) - 1
    place = share * np.maximum(last, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    each = np.arange(len(rows))
    low, high = ordered[each, below], ordered[each, above]
    return low + (place - below) * (high - low)
