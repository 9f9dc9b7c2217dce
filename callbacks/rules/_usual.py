"""The usual global norm of a run."""

from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.rules._recent import Recent, row_quantiles

_SHORT = 10
_SHORT_SEEN = 5


@dataclass(frozen=True)
class Usual:
    """For each step, from the steps before it; NaN where too few were seen.

    Attributes:
        median: running median of the norm, [steps].
        peak: largest that a median over a few steps has been in the whole run, [steps]. A run
            that has converged comes back to it now and then.
    """

    median: np.ndarray
    peak: np.ndarray


class FirstLevel:
    """Follows the median of a run's first values across windows.

    Args:
        least: values whose median is the level; before so many were seen, those seen.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._values: list[float] = []

    def reset(self) -> None:
        """Forgets the run."""
        self._values = []

    def follow(self, values: np.ndarray) -> np.ndarray:
        """The level before each of these values, [values]; NaN where none was seen."""
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
    """Follows the global norm of a run across windows.

    Args:
        memory: steps that the running median looks back on.
        warmup: steps that must have been seen.
    """

    def __init__(self, *, memory: int, warmup: int) -> None:
        self._warmup = warmup
        self._long = Recent(memory)
        self._short = Recent(_SHORT)
        self._peak = 0.0
        self._seen = 0

    def reset(self) -> None:
        """Forgets the run."""
        self._long.clear()
        self._short.clear()
        self._peak, self._seen = 0.0, 0

    def follow(self, norms: np.ndarray) -> Usual:
        """What was usual before each of these finite norms, [steps]."""
        seen = self._seen + np.arange(len(norms))
        short = row_quantiles(self._short.before(norms), 0.5)
        peak = np.maximum.accumulate(np.where(seen >= _SHORT_SEEN, short, 0.0))
        peak = np.maximum(peak, self._peak)
        median = row_quantiles(self._long.before(norms), 0.5)
        if len(norms):
            self._peak, self._seen = float(peak[-1]), int(seen[-1]) + 1
        known = seen >= self._warmup
        return Usual(np.where(known, median, np.nan), np.where(known, peak, np.nan))
