"""The recorded gradient norms of a training run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkeeper.callbacks.bins import Bins
from gradkeeper.callbacks.matching import Names, matching, patterns_of
from gradkeeper.callbacks.rows import Rows
from gradkeeper.callbacks.sinks import read_all_workers
from gradkeeper.callbacks.window import Window

if TYPE_CHECKING:
    import pandas as pd

# 30,000 steps of 50 variables.
MAX_VALUES = 1_500_000
_SCALARS = ("loss", "learning_rate", "loss_scale", "clip_coefficient")


class GradientHistory:
    """Gradient norms per train step and variable, in bounded memory.

    Rows are train steps, columns the model's trainable variables in the model's order.
    A norm is NaN (or Inf) where the gradient held NaN (or Inf), and NaN where there was no
    gradient at all; `present` tells the two apart.

    Memory: while rows x variables is at most `max_values`, every recorded step has its row.
    Beyond that the most recent steps, at least half of `max_values`, have theirs; the older
    ones are in at most 1000 `bins`, and of each bin two rows stay: the one with the largest
    finite global norm and the first with NaN or Inf. So rows are always real train steps,
    and the largest norm and the first NaN of a run are among them. At most
    `max_values * (60 + 5 * replicas)` bytes are held, 90 MB by default on a single device,
    and up to twice that while rows are put together; with float64 norms twice as much. A model
    of fewer than 16 variables counts as one of 16; 64 rows are held in any case.

    Args:
        refresh: called before the history is read, to fetch rows that still wait elsewhere.
        max_values: the most norms to hold, rows x variables.

    Raises:
        ValueError: if `max_values` is not positive.
    """

    def __init__(
        self, refresh: Callable[[], None] | None = None, *, max_values: int = MAX_VALUES
    ) -> None:
        if max_values < 1:
            raise ValueError(f"max_values must be at least 1. Received: max_values={max_values}")
        self._refresh = refresh
        self._rows = Rows(max_values)

    @classmethod
    def load(cls, log_dir: str | Path, *, max_values: int = MAX_VALUES) -> "GradientHistory":
        """Reads the Parquet parts that a `GradientMonitor(log_dir=...)` wrote, of all workers.

        Raises:
            FileNotFoundError: if the folder holds no part.
        """
        history = cls(max_values=max_values)
        for window in read_all_workers(log_dir):
            history.append(window)
        if not history.recorded:
            raise FileNotFoundError(
                "No gradient history (gradients-*.parquet) in this folder. "
                f"Received: log_dir={str(log_dir)!r}"
            )
        return history

    def append(self, window: Window) -> None:
        """Adds train steps at the end; variables not seen before become further columns."""
        self._rows.append(window)

    def __len__(self) -> int:
        """Number of rows held."""
        self._fetch()
        return self._rows.held

    @property
    def recorded(self) -> int:
        """Number of train steps ever recorded, held or not."""
        self._fetch()
        return self._rows.recorded

    @property
    def bins(self) -> Bins:
        """Summary of the steps before the recent ones; no bin while every step has its row."""
        return self._rows.bins.with_variables(self._all.variables)

    def since(self, row: int) -> Window:
        """The steps recorded from the `row`-th on; negative rows count from the end.

        Of steps that were thinned, only the rows that stayed. Reads no others.
        """
        self._fetch()
        return self._rows.since(row if row >= 0 else self._rows.recorded + row)

    @property
    def recent(self) -> Window:
        """The latest steps, none of which is missing; all, while none has been thinned."""
        return self._all[self._rows.thinned :]

    def select(self, *layers: Names) -> "GradientHistory":
        """Return the history, as it stands, of some layers or variables.

        Global norms and clipping are then of these variables alone; of thinned steps they are
        not known, so that the bins have no global norm and count no updates.

        Args:
            layers: names of layers as Keras has them (`"memory"`), with the layers below them;
                paths (`"encoder/memory"`), names of variables, or patterns (`"*lstm*"`). One
                name, several names, or lists of names.

        Raises:
            ValueError: if a name matches no layer and no variable.
        """
        chosen = GradientHistory()
        chosen._rows = self._rows.select(matching(self.variables, patterns_of(*layers)))
        return chosen

    def to_dataframe(self, layers: Names | None = None) -> "pd.DataFrame":
        """Return a row per train step: norms per variable, global norms, and whether it was clipped.

        With `loss`, `learning_rate`, `loss_scale` and `clip_coefficient` where there are any.

        Args:
            layers: the layers or variables to hold, as for `select`; all by default.

        Raises:
            ImportError: if pandas is not installed.
            ValueError: if a name matches no layer and no variable.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "GradientHistory.to_dataframe() needs pandas: "
                'python -m pip install "gradkeeper[pandas]"'
            ) from error
        if layers is not None:
            return self.select(layers).to_dataframe()
        columns: dict[str, Any] = dict(zip(self.variables, self.norms.T, strict=True))
        columns["global_norm"] = self.global_norm
        columns["applied_global_norm"] = self.applied_global_norm
        columns["clipped"] = self.clipped
        scalars = {name: getattr(self, name) for name in _SCALARS}
        columns |= {name: value for name, value in scalars.items() if not np.isnan(value).all()}
        return pd.DataFrame(columns, index=pd.Index(self.steps, name="step"))

    @property
    def clip_fraction(self) -> float:
        """Share of the recorded steps with an update that clipping changed, 0 to 1."""
        recent, bins = self.recent, self._rows.bins
        updated = recent.updated.any(axis=1)
        clipped = int(bins.clipped.sum()) + int((updated & recent.clipped).sum())
        return clipped / max(int(bins.updates.sum()) + int(updated.sum()), 1)

    @property
    def steps(self) -> np.ndarray:
        """Train steps of the rows, counted from 0, int64 [steps]."""
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
        """Whether the variable had a gradient, bool [steps, variables]."""
        return self._all.present

    @property
    def applied_norms(self) -> np.ndarray:
        """L2 norms after clipping, [steps, variables]; NaN where not `updated`."""
        return self._all.applied_norms

    @property
    def updated(self) -> np.ndarray:
        """Whether a gradient was applied to the variable, bool [steps, variables]."""
        return self._all.updated

    @property
    def max_abs(self) -> np.ndarray:
        """Largest magnitude of an element before clipping, [steps, variables]."""
        return self._all.max_abs

    @property
    def nonfinite(self) -> np.ndarray:
        """Number of elements that are NaN or infinite, int64 [steps, variables]."""
        return self._all.nonfinite

    @property
    def update_norms(self) -> np.ndarray:
        """L2 norms of what the optimizer added, [steps, variables]; NaN if not watched."""
        return self._all.value("update_norm")

    @property
    def weight_norms(self) -> np.ndarray:
        """L2 norms of the weights before the update, [steps, variables]; NaN if not watched."""
        return self._all.value("weight_norm")

    @property
    def update_ratios(self) -> np.ndarray:
        """Norm of the update over norm of the weight before it, [steps, variables]."""
        return self._all.update_ratios

    @property
    def loss(self) -> np.ndarray:
        """The train step's loss, float64 [steps]; NaN where there is none."""
        return self._all.scalar("loss")

    @property
    def learning_rate(self) -> np.ndarray:
        """The optimizer's learning rate, float64 [steps]; NaN where there is none."""
        return self._all.scalar("learning_rate")

    @property
    def loss_scale(self) -> np.ndarray:
        """Factor of dynamic loss scaling, float64 [steps]; NaN where there is none."""
        return self._all.scalar("loss_scale")

    @property
    def clip_coefficient(self) -> np.ndarray:
        """Norm applied over norm that entered the clipping, [steps]; 1 where it did nothing."""
        return self._all.clip_coefficient

    @property
    def clipped(self) -> np.ndarray:
        """Whether the optimizer's clipping changed a gradient, bool [steps]."""
        return self._all.clipped

    @property
    def skipped(self) -> np.ndarray:
        """Whether loss scaling skipped the step for overflow, or a guard, bool [steps]."""
        return self._all.skipped

    @property
    def accumulated(self) -> np.ndarray:
        """Whether the gradient was only added to an accumulator, bool [steps]."""
        return self._all.accumulated

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
    def replica_norms(self) -> np.ndarray:
        """L2 norms of each replica's own gradient, [steps, replicas, variables]."""
        return self._all.replica_norms

    @property
    def first_replica(self) -> int:
        """Index of the first of these replicas among all: above 0 on a further worker."""
        return self._all.first_replica

    @property
    def replica_global_norms(self) -> np.ndarray:
        """L2 norm over all variables per replica, [steps, replicas]."""
        return self._all.replica_global_norms

    @property
    def _all(self) -> Window:
        self._fetch()
        return self._rows.all()

    def _fetch(self) -> None:
        if self._refresh is not None:
            self._refresh()
