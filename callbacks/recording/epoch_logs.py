"""Epoch summaries for the Keras logs."""

import math

import numpy as np

from gradkeeper.callbacks.window import Window


class EpochSummary:
    """Means over the finite train steps of an epoch, accumulated by window."""

    def __init__(self) -> None:
        self._steps = self._nonfinite = self._updates = self._clipped = 0
        self._norms = _Mean()
        self._applied = _Mean()

    def add(self, window: Window) -> None:
        """Add the steps of a window."""
        updated = window.updated.any(axis=1)
        norms = window.global_norm[window.present.any(axis=1)]
        self._steps += len(window)
        self._nonfinite += int(np.sum(~np.isfinite(norms)))
        self._updates += int(updated.sum())
        self._clipped += int(window.clipped[updated].sum())
        self._norms.add(norms)
        self._applied.add(window.applied_global_norm[updated])

    def logs(self) -> dict[str, float]:
        """Return the keys to add to the epoch logs; empty without a step."""
        if not self._steps:
            return {}
        updates = self._updates
        return {
            "grad_norm": self._norms.mean,
            "grad_norm_applied": self._applied.mean,
            "clip_fraction": self._clipped / updates if updates else 0.0,
            "nonfinite_steps": float(self._nonfinite),
        }


class _Mean:
    """Running mean of the finite values; NaN without finite values."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        self._total += float(finite.sum())
        self._count += len(finite)

    @property
    def mean(self) -> float:
        return self._total / self._count if self._count else math.nan
