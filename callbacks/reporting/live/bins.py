"""Bins of consecutive rows, in bounded memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MOST = 1000


class Bin(NamedTuple):
    """Summary of consecutive recorded train steps.

    Attributes:
        step: the first of the steps.
        loss: mean loss; NaN if the loss of a step is NaN or unknown.
        norms: largest L2 norms before clipping, [1 + layers]: of all variables, then of each layer;
            inf where a norm is NaN or infinite, NaN where no step has a gradient.
    """

    step: int
    loss: float
    norms: np.ndarray


class Bins:
    """Bins of equally many rows. When there are 1000 bins, pairs of adjacent bins are merged.

    Attributes:
        size: number of rows in a bin.
        done: the complete bins.
    """

    def __init__(self) -> None:
        self.size = 1
        self.done: list[Bin] = []
        self._rows: list[Bin] = []

    def add(self, row: Bin) -> None:
        """Add a row, as a bin of one step."""
        self._rows.append(row)
        if len(self._rows) == self.size:
            self.done.append(_merged(self._rows))
            self._rows = []
        if len(self.done) == _MOST:
            pairs = zip(self.done[::2], self.done[1::2], strict=True)
            self.done = [_merged(pair) for pair in pairs]
            self.size *= 2


def _merged(bins: Sequence[Bin]) -> Bin:
    norms = bins[0].norms
    for each in bins[1:]:
        if more := len(each.norms) - len(norms):  # a later bin may have more layers
            norms = np.pad(norms, (0, more), constant_values=np.nan)
        norms = np.fmax(norms, each.norms)
    return Bin(bins[0].step, sum(each.loss for each in bins) / len(bins), norms)
