"""The last values of a series, across windows."""

import numpy as np


class Recent:
    """Keeps the last values of a series and shows, for each new one, those before it."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._values = np.zeros(0)

    def clear(self) -> None:
        """Forgets all values."""
        self._values = np.zeros(0)

    def before(self, values: np.ndarray) -> np.ndarray:
        """The values before each of these, float [values, memory], NaN where there is none.

        Columns are in order, the value just before in the last.
        """
        series = np.concatenate([self._values, values])
        padded = np.concatenate([np.full(self._memory, np.nan), series])
        self._values = series[-self._memory :]
        every = np.lib.stride_tricks.sliding_window_view(padded, self._memory)
        return every[len(series) - len(values) : len(series)]

    def through(self, values: np.ndarray) -> np.ndarray:
        """As `before`, but with the value itself in the last column."""
        if not len(values):
            return np.zeros((0, self._memory))
        return np.concatenate([self.before(values)[:, 1:], values[:, None]], axis=1)


def row_quantiles(rows: np.ndarray, share: float) -> np.ndarray:
    """The quantile of each row's values that are not NaN, [rows]; NaN where there is none."""
    ordered = np.sort(rows, axis=1)
    last = (~np.isnan(rows)).sum(axis=1) - 1
    place = share * np.maximum(last, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    each = np.arange(len(rows))
    low, high = ordered[each, below], ordered[each, above]
    return low + (place - below) * (high - low)
