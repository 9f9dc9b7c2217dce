"""The recorded gradient norms of a training run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkeeper.callbacks.sinks.parquet import read_parts
from gradkeeper.callbacks.window import Window

if TYPE_CHECKING:
    import pandas as pd


class GradientHistory:
    """Gradient norms per train step and variable.

    Rows are train steps, columns the model's trainable variables in the model's order.
    A norm is NaN (or Inf) where the gradient held NaN (or Inf), and NaN where there was no
    gradient at all; `present` tells the two apart.

    Args:
        refresh: called before the history is read, to fetch rows that still wait elsewhere.
    """

    def __init__(self, refresh: Callable[[], None] | None = None) -> None:
        self._refresh = refresh
        self._windows: list[Window] = []

    @classmethod
    def load(cls, log_dir: str | Path) -> "GradientHistory":
        """Reads the Parquet parts that a `GradientMonitor(log_dir=...)` wrote.

        Raises:
            FileNotFoundError: if the folder holds no part.
        """
        history = cls()
        for window in read_parts(log_dir):
            history.append(window)
        if not history._windows:
            raise FileNotFoundError(
                "No gradient history (gradients-*.parquet) in this folder. "
                f"Received: log_dir={str(log_dir)!r}"
            )
        return history

    def append(self, window: Window) -> None:
        """Adds train steps at the end; variables not seen before become further columns."""
        self._windows.append(window)

    def __len__(self) -> int:
        self._fetch()
        return sum(map(len, self._windows))

    @property
    def steps(self) -> np.ndarray:
        """Train steps, counted from 0, int64 [steps]."""
        return self._all.steps

    @property
    def variables(self) -> list[str]:
        """Paths of the variables, one per column."""
        return list(self._all.variables)

    @property
    def layers(self) -> list[str]:
        """Paths of the layers that own a variable, in the model's order."""
        return self._all.layers

    @property
    def norms(self) -> np.ndarray:
        """L2 norms of the true gradients before clipping, [steps, variables]."""
        return self._all.norms

    @property
    def present(self) -> np.ndarray:
        """Whether the variable had a gradient, [steps, variables]."""
        return self._all.present

    @property
    def applied_norms(self) -> np.ndarray:
        """L2 norms after the optimizer's clipping, [steps, variables]; NaN where not applied."""
        return self._all.applied_norms

    @property
    def updated(self) -> np.ndarray:
        """Whether a gradient was applied to the variable, [steps, variables]."""
        return self._all.updated

    @property
    def layer_norms(self) -> np.ndarray:
        """L2 norms before clipping over all variables of a layer, [steps, layers]."""
        return self._all.layer_norms

    @property
    def global_norm(self) -> np.ndarray:
        """L2 norm before clipping over all variables, [steps]."""
        return self._all.global_norm

    @property
    def applied_global_norm(self) -> np.ndarray:
        """L2 norm after clipping over all variables, [steps]; NaN where nothing was applied."""
        return self._all.applied_global_norm

    @property
    def clipped(self) -> np.ndarray:
        """Whether the optimizer's clipping changed a gradient, bool [steps]."""
        return self._all.clipped

    @property
    def clip_fraction(self) -> float:
        """Share of the applied steps in which clipping changed a gradient, 0 to 1."""
        return self._all.clip_fraction

    def since(self, row: int) -> Window:
        """The steps from row `row` on; negative rows count from the end. Reads no others."""
        left = len(self) - row if row >= 0 else -row
        recent: list[Window] = []
        for window in reversed(self._windows):
            if left <= 0:
                break
            recent.insert(0, window[-left:])
            left -= len(window)
        return Window.concatenate(recent)

    def to_dataframe(self) -> "pd.DataFrame":
        """A row per train step: norms per variable, global norms, and whether it was clipped.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "GradientHistory.to_dataframe() needs pandas: "
                'python -m pip install "gradkeeper[pandas]"'
            ) from error
        columns: dict[str, Any] = dict(zip(self.variables, self.norms.T, strict=True))
        columns["global_norm"] = self.global_norm
        columns["applied_global_norm"] = self.applied_global_norm
        columns["clipped"] = self.clipped
        return pd.DataFrame(columns, index=pd.Index(self.steps, name="step"))

    @property
    def _all(self) -> Window:
        self._fetch()
        if len(self._windows) != 1:
            self._windows = [Window.concatenate(self._windows)]
        return self._windows[0]

    def _fetch(self) -> None:
        if self._refresh is not None:
            self._refresh()
