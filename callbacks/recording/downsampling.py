"""Downsampling of old train steps: summary statistics of bins of consecutive steps."""

from dataclasses import dataclass, fields

import numpy as np

from gradkeeper.callbacks.window import Window

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class NormRange:
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
        lengths = np.diff(starts, append=len(self.min))
        finite = np.add.reduceat(self.finite, starts, axis=0)
        weighted = np.where(self.finite > 0, self.mean, 0.0) * self.finite
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            least = np.fmin.reduceat(self.min, starts, axis=0)
            greatest = np.fmax.reduceat(self.max, starts, axis=0)
            mean = np.add.reduceat(weighted, starts, axis=0) / finite
        return NormRange(
            least,
            _first_step(self.min, self.min_step, least, starts, lengths),
            mean,
            greatest,
            _first_step(self.max, self.max_step, greatest, starts, lengths),
            finite,
            np.add.reduceat(self.nonfinite, starts, axis=0),
        )

    def joined(self, later: "NormRange") -> "NormRange":
        """Return these bins followed by the bins of later steps."""
        pairs = ((getattr(self, each.name), getattr(later, each.name)) for each in fields(self))
        return NormRange(*(np.concatenate(pair) for pair in pairs))

    def with_columns(self, columns: list[int], width: int) -> "NormRange":
        """Move the columns to positions `columns` of `width`; the other columns have no norm."""
        fills = (np.nan, -1, np.nan, np.nan, -1, 0, 0)
        arrays = (getattr(self, each.name) for each in fields(self))
        return NormRange(
            *(_widened(array, columns, width, f) for array, f in zip(arrays, fills, strict=True))
        )

    def select(self, columns: list[int]) -> "NormRange":
        """Return the bins with these columns only."""
        return NormRange(*(getattr(self, each.name)[:, columns] for each in fields(self)))


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
        """Append the steps of the window, and merge adjacent bins to at most `limit` bins."""
        before = int(self.count.sum())
        size = self.size
        while -(-(before + len(window)) // size) > limit:
            size *= 2
        earlier, later = (
            self.with_variables(window.variables)._merged(size),
            DownsampledSteps.of(window),
        )
        later = later.with_variables(earlier.variables)._merged(size, before)
        joined = DownsampledSteps(
            earlier.variables,
            size,
            np.concatenate([earlier.first_step, later.first_step]),
            np.concatenate([earlier.last_step, later.last_step]),
            np.concatenate([earlier.count, later.count]),
            np.concatenate([earlier.updates, later.updates]),
            np.concatenate([earlier.clipped, later.clipped]),
            earlier.global_norm.joined(later.global_norm),
            earlier.norms.joined(later.norms),
        )
        return joined._merged(size)

    def with_variables(self, variables: tuple[str, ...]) -> "DownsampledSteps":
        """Add columns for these variables. The added columns have no norm."""
        every = tuple(dict.fromkeys([*self.variables, *variables]))
        if every == self.variables:
            return self
        columns = [every.index(name) for name in self.variables]
        return self._with_norms(every, self.norms.with_columns(columns, len(every)))

    def select(self, columns: list[int]) -> "DownsampledSteps":
        """Return the norms of some variables; global norms and update counts are dropped."""
        none = np.zeros(len(self), np.int64)
        nothing = NormRange.of(np.full(len(self), np.nan), none > 0, none)
        names = tuple(self.variables[column] for column in columns)
        spread = self.norms.select(columns)
        times = self.first_step, self.last_step, self.count
        return DownsampledSteps(names, self.size, *times, none, none, nothing, spread)

    def _with_norms(self, variables: tuple[str, ...], norms: NormRange) -> "DownsampledSteps":
        times = self.first_step, self.last_step, self.count
        counts = self.updates, self.clipped
        return DownsampledSteps(variables, self.size, *times, *counts, self.global_norm, norms)

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
            np.add.reduceat(self.count, starts),
            np.add.reduceat(self.updates, starts),
            np.add.reduceat(self.clipped, starts),
            self.global_norm.merged(starts),
            self.norms.merged(starts),
        )


def _first_step(
    values: np.ndarray,
    steps: np.ndarray,
    extremes: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Return the first step at which each group reaches its extreme; -1 if none does."""
    reached = values == np.repeat(extremes, lengths, axis=0)
    first = np.minimum.reduceat(np.where(reached, steps, _NEVER), starts, axis=0)
    return np.where(first == _NEVER, -1, first)


def _widened(values: np.ndarray, columns: list[int], width: int, fill: float) -> np.ndarray:
    wide = np.full((len(values), width), fill, values.dtype)
    wide[:, columns] = values
    return wide
