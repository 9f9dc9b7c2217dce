"""Usual global norm of a run."""

from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.rules._recent import Recent, row_quantiles

_SHORT = 10
_SHORT_SEEN = 5


@dataclass(frozen=True)
class Usual:
    """Levels of the norm before each step; NaN where too few steps precede it.

    Attributes:
        median: running median of the norm, [steps].
        peak: largest median over ten consecutive steps in the run so far, [steps]. A converged
            run returns to this level from time to time.
    """

    median: np.ndarray
    peak: np.ndarray


class FirstLevel:
    """Median of the first values of a run.

    Args:
        least: number of values in the median. While fewer were read, the median is over those.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._values: list[float] = []

    def reset(self) -> None:
        """Reset the state for another run."""
        self._values = []

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

    def reset(self) -> None:
        """Reset the state for another run."""
        self._long.clear()
        self._short.clear()
        self._peak, self._seen = 0.0, 0

    def follow(self, norms: np.ndarray) -> Usual:
        """Return the levels before each of these finite norms, [steps]."""
        seen = self._seen + np.arange(len(norms))
        short = row_quantiles(self._short.before(norms), 0.5)
        peak = np.maximum.accumulate(np.where(seen >= _SHORT_SEEN, short, 0.0))
        peak = np.maximum(peak, self._peak)
        median = row_quantiles(self._long.before(norms), 0.5)
        if len(norms):
            self._peak, self._seen = float(peak[-1]), int(seen[-1]) + 1
        known = seen >= self._warmup
        return Usual(np.where(known, median, np.nan), np.where(known, peak, np.nan))
