"""Simple gradient noise scale, estimated from the gradient norms of two batch sizes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradkeeper.callbacks.window import Window


@dataclass(frozen=True)
class NoiseScale:
    """Estimates of the simple gradient noise scale B_simple = tr(Σ) / |G|².

    McCandlish, Kaplan, Amodei et al.: "An Empirical Model of Large-Batch Training", 2018, arXiv
    1812.06162, appendix A.1. G is the true gradient and Σ the covariance of the gradient of one
    example. The norms of a gradient of b and of one of B > b examples at the same weights give
    unbiased estimates::

        |G|²  = (B |G_B|² - b |G_b|²) / (B - b)
        tr(Σ) = (|G_b|² - |G_B|²) / (1/b - 1/B)

    Attributes:
        steps: train step of each estimate, int64 [estimates].
        squared_norm: estimates of |G|², float64 [estimates]; a single one may be negative.
        covariance_trace: estimates of tr(Σ), float64 [estimates].
    """

    steps: np.ndarray
    squared_norm: np.ndarray
    covariance_trace: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def value(self) -> float:
        """Mean of tr(Σ) divided by the mean of |G|², in examples.

        The ratio of the means, because the mean of the ratios is biased. Infinite if the mean of
        |G|² is not positive: the noise hides the gradient. NaN without an estimate.
        """
        if not len(self):
            return math.nan
        square = float(self.squared_norm.mean())
        return float(self.covariance_trace.mean()) / square if square > 0 else math.inf

    @classmethod
    def of(cls, window: "Window", batch_size: float) -> "NoiseScale":
        """Return the estimates of a window; none without replicas or accumulated gradients.

        Args:
            window: consecutive train steps.
            batch_size: number of examples in the batch of a train step.
        """
        replicas = window.replica_norms.shape[1]
        if replicas > 1:
            # A replica's gradient is a summand of the mean over the global batch.
            parts = replicas * window.replica_global_norms
            rows, small, large = np.arange(len(window)), batch_size / replicas, batch_size
            whole = window.global_norm
        else:
            rows, count = _accumulated_updates(window)
            parts = window.global_norm[rows[:, np.newaxis] - np.arange(count)]
            small, large = batch_size, count * batch_size
            whole = window.scalar("unclipped_norm")[rows]
        parts, whole = np.mean(np.square(parts), axis=1), np.square(whole)
        known = np.isfinite(parts) & np.isfinite(whole)
        parts, whole = parts[known], whole[known]
        return cls(
            window.steps[rows[known]],
            (large * whole - small * parts) / (large - small),
            (parts - whole) / (1 / small - 1 / large),
        )


def _accumulated_updates(window: "Window") -> tuple[np.ndarray, int]:
    """Return the rows with an update of accumulated gradients, and the number of micro-batches.

    Updates are left out if the window lacks some of their micro-batches.
    """
    rows = np.arange(len(window))
    continues = np.zeros(len(window), bool)
    continues[1:] = window.accumulated[:-1] & (np.diff(window.steps) == 1)
    lengths = 1 + rows - np.maximum.accumulate(np.where(continues, 0, rows))
    updates = np.isfinite(window.scalar("unclipped_norm")) & (lengths > 1)
    count = int(lengths[updates].max(initial=1))
    return np.flatnonzero(updates & (lengths == count)), count
