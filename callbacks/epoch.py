"""The numbers of an epoch, for Keras's logs."""

import math

from gradkeeper.callbacks.window import Window


class EpochSummary:
    """Means over the train steps of an epoch, gathered window by window."""

    def __init__(self) -> None:
        self._steps = self._updates = self._clipped = 0
        self._norm = self._applied = 0.0

    def add(self, window: Window) -> None:
        """Takes in the steps of a window."""
        updated = window.updated.any(axis=1)
        self._steps += len(window)
        self._updates += int(updated.sum())
        self._clipped += int(window.clipped[updated].sum())
        self._norm += float(window.global_norm.sum())
        self._applied += float(window.applied_global_norm[updated].sum())

    def logs(self) -> dict[str, float]:
        """The keys that the monitor adds to the epoch's logs; none without a step."""
        if not self._steps:
            return {}
        updates = self._updates
        return {
            "grad_norm": self._norm / self._steps,
            "grad_norm_applied": self._applied / updates if updates else math.nan,
            "clip_fraction": self._clipped / updates if updates else 0.0,
        }
