"""Row buffer of recorded train steps in bounded memory; old rows are downsampled to bins."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms
from gradkeeper.callbacks.window import Window, change_columns, change_rows, widened

# The scalars of a row (step, loss, global norms, ...) use about as much memory as this many norms.
_NARROWEST = 16
_FEWEST_ROWS = 64
_MOST_BINS = 1000
# Windows are concatenated in blocks, because a window of one row is mostly overhead.
_BLOCK = 64

_NEVER = np.iinfo(np.int64).max
# Fields of `DownsampledSteps` that are summed when bins are merged.
_COUNTS = ("count", "updates", "clipped")


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
        first_step: statistics of the first downsampled step.
        healthy: norms of the healthy steps among the downsampled ones.
    """

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._windows: list[Window] = []
        self._unjoined = 0
        self._variables: dict[str, None] = {}
        self._calls: dict[str, None] = {}
        self._numbers = np.zeros(0, np.int64)
        self.bins = DownsampledSteps.of(Window.concatenate([]))
        self.recorded = self.held = 0
        self.first_step, self.healthy = FirstStep(), HealthyNorms()

    @property
    def downsampled(self) -> int:
        return len(self._numbers)

    @property
    def max_rows(self) -> int:
        """Maximum number of rows for the current number of variables and layer calls."""
        columns = len(self._variables) + len(self._calls)
        return max(_FEWEST_ROWS, self._max_values // max(_NARROWEST, columns))

    def append(self, window: Window) -> None:
        """Append rows. New variables add columns."""
        if not len(window):
            return
        self._windows.append(_owned(window))
        self._variables.update(dict.fromkeys(window.variables))
        self._calls.update(dict.fromkeys(window.activations.names))
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
        self.first_step.follow(front[self.downsampled :])
        self.healthy.follow(front[self.downsampled :])
        most = min(_MOST_BINS, self.max_rows // 8)
        self.bins = self.bins.extended(front[self.downsampled :], most)
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
    names = tuple(window.variables[column] for column in columns)
    chosen = change_columns(window, names, lambda values: values[..., columns])
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

    # Losses and calls are for rules only.
    kept = dataclasses.replace(window, replica_losses=np.zeros((0, 0)), calls=())
    return change_rows(kept, own)


class NormRange(NamedTuple):
    """Smallest, mean and largest finite norm of each bin, with the exact steps.

    Every array is [bins] for the global norm and [bins, variables] for the norms per variable.

    Attributes:
        min: smallest finite norm, float; NaN without a finite norm.
        min_step: first train step with the smallest norm, int64; -1 without a finite norm.
        mean: mean of the finite norms, float64; NaN without a finite norm.
        max: largest finite norm, float; NaN without a finite norm.
        max_step: first train step with the largest norm, int64; -1 without a finite norm.
        finite: number of steps with a finite norm, int64.
        nonfinite: number of steps whose gradient contains NaN or Inf, int64.
    """

    min: np.ndarray
    min_step: np.ndarray
    mean: np.ndarray
    max: np.ndarray
    max_step: np.ndarray
    finite: np.ndarray
    nonfinite: np.ndarray

    @classmethod
    def of(cls, norms: np.ndarray, there: np.ndarray, steps: np.ndarray) -> "NormRange":
        """Return one bin per step. Norms are [steps] or [steps, variables], valid where `there`."""
        finite = there & np.isfinite(norms)
        known = np.where(finite, norms, np.nan)
        at = np.where(finite, steps.reshape(-1, *[1] * (norms.ndim - 1)), -1)
        counts = finite.astype(np.int64), (there & ~finite).astype(np.int64)
        return cls(known, at, known.astype(np.float64), known, at, *counts)

    def merged(self, starts: np.ndarray) -> "NormRange":
        """Merge the bins from `starts[i]` up to `starts[i + 1]` into one bin each."""
        finite = np.add.reduceat(self.finite, starts, axis=0)
        weighted = np.where(self.finite > 0, self.mean, 0.0) * self.finite
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            least = np.fmin.reduceat(self.min, starts, axis=0)
            greatest = np.fmax.reduceat(self.max, starts, axis=0)
            mean = np.add.reduceat(weighted, starts, axis=0) / finite
        first = _first_step(self.min, self.min_step, least, starts)
        largest = _first_step(self.max, self.max_step, greatest, starts)
        nonfinite = np.add.reduceat(self.nonfinite, starts, axis=0)
        return NormRange(least, first, mean, greatest, largest, finite, nonfinite)

    def joined(self, later: "NormRange") -> "NormRange":
        """Return these bins followed by the bins of later steps."""
        return NormRange(*map(np.concatenate, zip(self, later, strict=True)))


@dataclass(frozen=True)
class DownsampledSteps:
    """Bins of consecutive recorded train steps, oldest first.

    Attributes:
        variables: paths of the variables, the columns of `norms`.
        size: number of recorded steps per bin; the last bin may have fewer.
        first_step: the first train step of each bin, int64 [bins].
        last_step: the last train step of each bin, int64 [bins].
        count: number of recorded steps, int64 [bins].
        updates: number of steps in which an update was applied, int64 [bins].
        clipped: number of steps with an update in which clipping changed a gradient, int64 [bins].
        global_norm: norm before clipping over all variables, arrays [bins].
        norms: norms before clipping per variable, arrays [bins, variables].
    """

    variables: tuple[str, ...]
    size: int
    first_step: np.ndarray
    last_step: np.ndarray
    count: np.ndarray
    updates: np.ndarray
    clipped: np.ndarray
    global_norm: NormRange
    norms: NormRange

    @classmethod
    def of(cls, window: Window) -> "DownsampledSteps":
        """Return one bin per step of the window."""
        updated, there = np.any(window.updated, axis=1), np.any(window.present, axis=1)
        return cls(
            window.variables,
            1,
            window.steps,
            window.steps,
            np.ones(len(window), np.int64),
            updated.astype(np.int64),
            (updated & window.clipped).astype(np.int64),
            NormRange.of(window.global_norm, there, window.steps),
            NormRange.of(window.norms, window.present, window.steps),
        )

    def __len__(self) -> int:
        return len(self.count)

    def extended(self, window: Window, limit: int) -> "DownsampledSteps":
        """Append the steps of the window, and merge adjacent bins to at most `limit` bins.

        Args:
            window: the steps, with at least the variables of the bins, in the same order.
            limit: maximum number of bins.
        """
        before = int(self.count.sum())
        size = self.size
        while -(-(before + len(window)) // size) > limit:
            size *= 2
        earlier = self.with_variables(window.variables)._merged(size)
        later = DownsampledSteps.of(window)._merged(size, before)
        counts = {
            name: np.concatenate([getattr(earlier, name), getattr(later, name)])
            for name in ("first_step", "last_step", *_COUNTS)
        }
        return DownsampledSteps(
            window.variables,
            size,
            **counts,
            global_norm=earlier.global_norm.joined(later.global_norm),
            norms=earlier.norms.joined(later.norms),
        )._merged(size)

    def with_variables(self, variables: tuple[str, ...]) -> "DownsampledSteps":
        """Add columns for these variables. The added columns have no norm."""
        every = tuple(dict.fromkeys([*self.variables, *variables]))
        if every == self.variables:
            return self
        columns = [every.index(name) for name in self.variables]
        no_norm = (np.nan, -1, np.nan, np.nan, -1, 0, 0)
        pairs = zip(self.norms, no_norm, strict=True)
        wide = (widened(array, columns, len(every), fill) for array, fill in pairs)
        return dataclasses.replace(self, variables=every, norms=NormRange(*wide))

    def select(self, columns: list[int]) -> "DownsampledSteps":
        """Return the norms of some variables; global norms and update counts are dropped."""
        none = np.zeros(len(self), np.int64)
        return dataclasses.replace(
            self,
            variables=tuple(self.variables[column] for column in columns),
            updates=none,
            clipped=none,
            global_norm=NormRange.of(np.full(len(self), np.nan), none > 0, none),
            norms=NormRange(*(array[:, columns] for array in self.norms)),
        )

    def _merged(self, size: int, before: int = 0) -> "DownsampledSteps":
        """Merge to a grid of `size` steps; `before` steps were recorded before the first bin."""
        if not len(self):
            return self
        ends = before + np.cumsum(self.count)
        starts = np.flatnonzero(np.diff((ends - self.count) // size, prepend=-1))
        return DownsampledSteps(
            self.variables,
            size,
            self.first_step[starts],
            self.last_step[np.append(starts[1:], len(self)) - 1],
            **{name: np.add.reduceat(getattr(self, name), starts) for name in _COUNTS},
            global_norm=self.global_norm.merged(starts),
            norms=self.norms.merged(starts),
        )


def _first_step(
    values: np.ndarray, steps: np.ndarray, extremes: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Return the first step at which each group reaches its extreme; -1 if none does."""
    lengths = np.diff(starts, append=len(values))
    reached = values == np.repeat(extremes, lengths, axis=0)
    first = np.minimum.reduceat(np.where(reached, steps, _NEVER), starts, axis=0)
    return np.where(first == _NEVER, -1, first)
