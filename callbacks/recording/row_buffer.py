"""Row buffer of recorded train steps in bounded memory; old rows are downsampled."""

import dataclasses

import numpy as np

from gradkeeper.callbacks.recording.downsampling import DownsampledSteps
from gradkeeper.callbacks.window import Window

# The scalars of a row (step, loss, global norms, ...) use about as much memory as this many norms.
_NARROWEST = 16
_FEWEST_ROWS = 64
_MOST_BINS = 1000
# Windows are concatenated in blocks, because a window of one row is mostly overhead.
_BLOCK = 64


class RowBuffer:
    """Row buffer of a history: extreme rows of the downsampled steps, then all recent rows.

    When the buffer exceeds `max_rows`, the oldest quarter is downsampled to bins. Each bin keeps
    two rows: the one with the largest finite global norm, and the first non-finite one.

    Args:
        max_values: maximum number of norms to keep, rows x variables.

    Attributes:
        bins: summary of all downsampled rows, including the extreme rows.
        recorded: number of rows ever appended.
        held: number of rows in the buffer.
        downsampled: number of rows in the buffer that are extreme rows of bins.
    """

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._windows: list[Window] = []
        self._unjoined = 0
        self._variables: dict[str, None] = {}
        self._numbers = np.zeros(0, np.int64)
        self.bins = DownsampledSteps.of(Window.concatenate([]))
        self.recorded = self.held = 0

    @property
    def downsampled(self) -> int:
        return len(self._numbers)

    @property
    def max_rows(self) -> int:
        """Maximum number of rows for the current number of variables."""
        return max(_FEWEST_ROWS, self._max_values // max(_NARROWEST, len(self._variables)))

    def append(self, window: Window) -> None:
        """Append rows. New variables add columns."""
        if not len(window):
            return
        self._windows.append(_owned(window))
        self._variables.update(dict.fromkeys(window.variables))
        self.recorded += len(window)
        self.held += len(window)
        self._unjoined += 1
        if self._unjoined == _BLOCK:
            self._windows[-_BLOCK:] = [Window.concatenate(self._windows[-_BLOCK:])]
            self._unjoined = 0
        if self.held > self.max_rows:
            self._downsample(self.held - self.max_rows * 3 // 4)

    def all(self) -> Window:
        """Return all rows in the buffer as one window."""
        if len(self._windows) != 1:
            self._windows = [Window.concatenate(self._windows)]
            self._unjoined = 0
        return self._windows[0]

    def since(self, number: int) -> Window:
        """Return the rows from the `number`-th recorded one that are in the buffer."""
        left = self.recorded - max(number, 0)
        if left > self.held - self.downsampled:
            return self.all()[int(np.searchsorted(self._numbers, number)) :]
        recent: list[Window] = []
        for window in reversed(self._windows):
            if left <= 0:
                break
            recent.insert(0, window[-left:])
            left -= len(window)
        return Window.concatenate(recent)

    def select(self, columns: list[int]) -> "RowBuffer":
        """Return a row buffer with these columns only."""
        chosen = RowBuffer(self._max_values)
        chosen._windows = [_with_columns(self.all(), columns)]
        chosen._variables = dict.fromkeys(chosen._windows[0].variables)
        chosen._numbers = self._numbers
        chosen.bins = self.bins.with_variables(self.all().variables).select(columns)
        chosen.recorded, chosen.held = self.recorded, self.held
        return chosen

    def _downsample(self, count: int) -> None:
        """Downsample the `count` oldest recent rows to bins, and keep the extreme rows."""
        count = min(count, self.held - self.downsampled)
        first = self.recorded - self.held + self.downsampled
        numbers = np.append(self._numbers, np.arange(first, first + count))
        front = self._take(len(numbers))
        self.bins = self.bins.extended(
            front[self.downsampled :], min(_MOST_BINS, self.max_rows // 8)
        )
        kept = _extreme_rows(front, numbers // self.bins.size)
        self._windows.insert(0, front[kept])
        self._numbers = numbers[kept]
        self.held += len(kept) - len(front)

    def _take(self, count: int) -> Window:
        """Remove and return the first `count` rows."""
        taken = []
        while count:
            window = self._windows.pop(0)
            if len(window) > count:
                self._windows.insert(0, _owned(window[count:]))
                window = window[:count]
            taken.append(window)
            count -= len(window)
        self._unjoined = min(self._unjoined, len(self._windows))
        return Window.concatenate(taken)


def _extreme_rows(window: Window, bins: np.ndarray) -> np.ndarray:
    """Return per bin the row with the largest finite norm and the first non-finite row."""
    norms = window.global_norm
    finite = np.isfinite(norms)
    bad = window.present.any(axis=1) & ~finite
    smallness = np.where(finite, -norms, np.where(bad, 0.0, np.inf))
    order = np.lexsort((smallness, bad, bins))
    _, first = np.unique((2 * bins + bad)[order], return_index=True)
    return np.sort(order[first])


def _with_columns(window: Window, columns: list[int]) -> Window:
    """Return the window with some of its variables.

    Steps with an `unclipped_norm` keep the clip coefficient of the whole window.
    """
    chosen = dataclasses.replace(
        window,
        variables=tuple(window.variables[column] for column in columns),
        present=window.present[:, columns],
        updated=window.updated[:, columns],
        values={name: value[:, columns] for name, value in window.values.items()},
        replica_norms=window.replica_norms[:, :, columns],
    )
    gathered = ~np.isnan(window.scalar("unclipped_norm"))
    if not gathered.any():
        return chosen
    with np.errstate(divide="ignore", invalid="ignore"):
        entered = chosen.applied_global_norm / window.clip_coefficient
    scalars = {**window.scalars, "unclipped_norm": np.where(gathered, entered, np.nan)}
    return dataclasses.replace(chosen, scalars=scalars)


def _owned(window: Window) -> Window:
    """Copy the window without cached statistics and without views of larger arrays."""

    def own(values: np.ndarray) -> np.ndarray:
        return values if values.base is None else values.copy()

    return Window(
        own(window.steps),
        window.variables,
        own(window.present),
        own(window.updated),
        {name: own(value) for name, value in window.values.items()},
        {name: own(value) for name, value in window.scalars.items()},
        own(window.replica_norms),
        window.first_replica,
        facts=window.facts,
    )
