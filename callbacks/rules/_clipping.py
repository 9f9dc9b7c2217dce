"""Effect of clipping on each update."""

from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.window import Window


@dataclass(frozen=True)
class Updates:
    """Steps of a window that applied a finite gradient.

    Attributes:
        steps: train steps, [updates].
        clipped: True where clipping changed a gradient, bool [updates].
        entered: global norm before clipping, [updates].
        shrunk: norm before clipping divided by norm after clipping, [updates]; 1 where clipping
            changed nothing.
        limit: configured clipping limit, [updates]; NaN where no limit is configured.
        learning_rate: learning rate of the optimizer, [updates]; NaN where unknown.
    """

    steps: np.ndarray
    clipped: np.ndarray
    entered: np.ndarray
    shrunk: np.ndarray
    limit: np.ndarray
    learning_rate: np.ndarray

    @classmethod
    def of(cls, window: Window) -> "Updates":
        """Return the updates of the window."""
        gathered = window.scalar("unclipped_norm")
        entered = np.where(np.isnan(gathered), window.global_norm, gathered)
        rows = np.flatnonzero(window.updated.any(axis=1) & np.isfinite(entered))
        with np.errstate(divide="ignore", invalid="ignore"):
            shrunk = 1.0 / window.clip_coefficient[rows]
        return cls(
            window.steps[rows],
            window.clipped[rows].astype(bool),
            entered[rows],
            shrunk,
            window.scalar("clip_limit")[rows],
            window.scalar("learning_rate")[rows],
        )
