"""History of the recorded gradient norms of a run, and the summary of an epoch."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkeeper._arguments import integer
from gradkeeper.callbacks._text import Names, matching, patterns_of
from gradkeeper.callbacks.activations import STATISTICS, Activations
from gradkeeper.callbacks.noise_scale import NoiseScale
from gradkeeper.callbacks.recording.row_buffer import DownsampledSteps, RowBuffer
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.rules.healthy_steps import HealthyNorms
from gradkeeper.callbacks.sinks.parquet import read_all_workers
from gradkeeper.callbacks.window import Window, WindowStatistics

if TYPE_CHECKING:
    import pandas as pd


# 30,000 steps of 50 variables.
MAX_VALUES = 1_500_000
_SCALARS = ("loss", "learning_rate", "loss_scale", "clip_coefficient")


class GradientHistory(WindowStatistics):
    """Gradient norms per train step and variable, in bounded memory.

    Rows are train steps. Columns are the trainable variables in the order of the model. A norm is
    NaN (or Inf) if the gradient contains NaN (or Inf), and NaN if there is no gradient; `present`
    distinguishes the two cases.

    Memory: up to `max_values` norms (rows x variables), every recorded step has a row. Above this
    limit, only the most recent steps, at least half of `max_values`, keep their rows. The older
    steps are downsampled to at most 1000 `bins`. Each bin keeps two rows: the one with the largest
    finite global norm and the first one with NaN or Inf. Every row is therefore a real train step,
    and the rows include the largest norm and the first NaN of a run. The history uses at most
    `max_values * (60 + 5 * replicas)` bytes, 90 MB by default on a single device, and
    up to twice as much while rows are concatenated. With float64 norms, these numbers double. A
    model with fewer than 16 variables counts as 16 variables. At least 64 rows are kept.

    Args:
        refresh: called before the history is read, to fetch pending rows.
        max_values: maximum number of norms to keep, rows x variables.

    Raises:
        ValueError: if `max_values` is not positive.
    """

    def __init__(
        self, refresh: Callable[[], None] | None = None, *, max_values: int = MAX_VALUES
    ) -> None:
        integer("max_values", max_values)
        self._refresh = refresh
        self._rows = RowBuffer(max_values)

    @classmethod
    def load(cls, log_dir: str | Path, *, max_values: int = MAX_VALUES) -> "GradientHistory":
        """Load the Parquet parts of all workers that `GradientMonitor(log_dir=...)` wrote.

        Raises:
            FileNotFoundError: if the directory contains no Parquet part.
        """
        history = cls(max_values=max_values)
        for window in read_all_workers(log_dir):
            history.append(window)
        if not history.recorded:
            raise FileNotFoundError(
                "No gradient history (gradients-*.parquet) found. Pass the log_dir of a run. "
                f"Received: log_dir={str(log_dir)!r}"
            )
        return history

    def append(self, window: Window) -> None:
        """Append train steps. New variables add columns."""
        self._rows.append(window)

    def __len__(self) -> int:
        """Return the number of rows in memory."""
        self._fetch()
        return self._rows.held

    @property
    def recorded(self) -> int:
        """Number of recorded train steps, including downsampled ones."""
        self._fetch()
        return self._rows.recorded

    @property
    def bins(self) -> DownsampledSteps:
        """Summary of the downsampled steps; empty while every step has a row."""
        return self._rows.bins.with_variables(self._window.variables)

    def since(self, row: int) -> Window:
        """Return the steps from the `row`-th recorded one; negative rows count from the end.

        Downsampled steps contribute only the rows that were kept.
        """
        self._fetch()
        return self._rows.since(row if row >= 0 else self._rows.recorded + row)

    @property
    def recent(self) -> Window:
        """Latest steps without a gap; all steps while none is downsampled."""
        return self._window[self._rows.downsampled :]

    def estimates(self) -> tuple[FirstStep, HealthyNorms]:
        """Return the statistics of the first step and of the healthy steps of the run.

        They include the downsampled steps; after `select`, only the steps of `recent`.
        """
        recent = self.recent
        first, healthy = copy.deepcopy((self._rows.first_step, self._rows.healthy))
        first.follow(recent)
        healthy.follow(recent)
        return first, healthy

    def select(self, *layers: Names) -> "GradientHistory":
        """Return a copy of the history for some layers or variables.

        Global norms and clipping cover the selected variables only. Both are unknown for
        downsampled steps: the bins have no global norm and count no updates.

        Args:
            layers: Keras layer names (`"memory"`), which include nested layers; paths
                (`"encoder/memory"`), variable names, or patterns (`"*lstm*"`). One name,
                several names, or lists of names.

        Raises:
            ValueError: if a name matches neither a layer nor a variable, or if there is no name.
        """
        chosen = GradientHistory()
        chosen._rows = self._rows.select(matching(self.variables, patterns_of(*layers)))
        return chosen

    def to_dataframe(self, layers: Names | None = None) -> "pd.DataFrame":
        """Return a data frame with one row per train step.

        The columns are the norm of each variable, `global_norm`, `applied_global_norm` and
        `clipped`; and `loss`, `learning_rate`, `loss_scale` and `clip_coefficient` if recorded.

        Args:
            layers: the layers or variables to include, as in `select`; all by default.

        Raises:
            ImportError: if pandas is not installed.
            ValueError: if a name matches neither a layer nor a variable.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "GradientHistory.to_dataframe() requires pandas. Install it with "
                'python -m pip install "gradkeeper[pandas]"'
            ) from error
        if layers is not None:
            return self.select(layers).to_dataframe()
        columns: dict[str, Any] = dict(zip(self.variables, self.norms.T, strict=True))
        for name in self.measurements:
            names = [f"{variable}:{name}" for variable in self.variables]
            columns |= dict(zip(names, self.value(name).T, strict=True))
        activations = self.activations
        for name in STATISTICS if activations.names else ():
            names = [f"{call}:{name}" for call in activations.names]
            columns |= dict(zip(names, activations.value(name).T, strict=True))
        columns["global_norm"] = self.global_norm
        columns["applied_global_norm"] = self.applied_global_norm
        columns["clipped"] = self.clipped
        scalars = {name: getattr(self, name) for name in _SCALARS}
        columns |= {name: value for name, value in scalars.items() if not np.isnan(value).all()}
        return pd.DataFrame(columns, index=pd.Index(self.steps, name="step"))

    def noise_scale(self, batch_size: float) -> NoiseScale:
        """Estimate the simple gradient noise scale from `recent`; see `Window.noise_scale`."""
        return self.recent.noise_scale(batch_size)

    @property
    def clip_fraction(self) -> float:
        """Share of the recorded updates that clipping changed, 0 to 1."""
        recent, bins = self.recent, self._rows.bins
        updated = recent.updated.any(axis=1)
        clipped = int(bins.clipped.sum()) + int((updated & recent.clipped).sum())
        return clipped / max(int(bins.updates.sum()) + int(updated.sum()), 1)

    @property
    def steps(self) -> np.ndarray:
        """Train step of each row, counted from 0, int64 [steps]."""
        return self._window.steps

    @property
    def variables(self) -> list[str]:
        """Paths of the variables, one per column."""
        return list(self._window.variables)

    @property
    def present(self) -> np.ndarray:
        """True where the variable has a gradient, bool [steps, variables]."""
        return self._window.present

    @property
    def updated(self) -> np.ndarray:
        """True where a gradient was applied to the variable, bool [steps, variables]."""
        return self._window.updated

    @property
    def update_norms(self) -> np.ndarray:
        """L2 norms of the updates, [steps, variables]; NaN if not recorded."""
        return self._window.value("update_norm")

    @property
    def weight_norms(self) -> np.ndarray:
        """L2 norms of the weights before the update, [steps, variables]; NaN if not recorded."""
        return self._window.value("weight_norm")

    @property
    def learning_rate(self) -> np.ndarray:
        """Learning rate of the optimizer, float64 [steps]; NaN if unknown."""
        return self._window.scalar("learning_rate")

    @property
    def loss_scale(self) -> np.ndarray:
        """Factor of dynamic loss scaling, float64 [steps]; NaN without loss scaling."""
        return self._window.scalar("loss_scale")

    @property
    def activations(self) -> Activations:
        """Statistics of the layer outputs; without calls unless "activations" was measured."""
        return self._window.activations

    @property
    def replica_norms(self) -> np.ndarray:
        """L2 norms of the gradient of each replica, [steps, replicas, variables]."""
        return self._window.replica_norms

    @property
    def first_replica(self) -> int:
        """Global index of the first of these replicas; above 0 on workers after the chief."""
        return self._window.first_replica

    @property
    def _window(self) -> Window:
        self._fetch()
        return self._rows.all()

    def _fetch(self) -> None:
        if self._refresh is not None:
            self._refresh()


class Histories:
    """History of all optimizers together, and of each optimizer.

    Args:
        refresh: see `GradientHistory`.

    Attributes:
        total: all recorded train steps.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self.total = GradientHistory(refresh=refresh)
        self._names: dict[str, None] = {}
        self._separate: dict[str, GradientHistory] = defaultdict(GradientHistory)

    def add(self, window: Window, by_optimizer: Mapping[str, Window]) -> None:
        """Append train steps: all variables, and those of each optimizer by its name."""
        before = list(self._names)
        self._names.update(dict.fromkeys(by_optimizer))
        if len(self._names) > 1:
            # With a single optimizer so far, the history holds the steps of that optimizer.
            if len(before) == 1:
                self._separate[before[0]].append(self.total.since(0))
            for name, each in by_optimizer.items():
                self._separate[name].append(each)
        self.total.append(window)

    def recent(self, steps: int) -> Window:
        """Return the latest recorded steps, without a refresh."""
        return self.total._rows.since(self.total._rows.recorded - steps)

    @property
    def by_optimizer(self) -> dict[str, GradientHistory]:
        """History of each optimizer, by name."""
        return dict(self._separate) or dict.fromkeys(self._names, self.total)


class EpochSummary:
    """Keys for the epoch logs: means over the finite train steps of an epoch."""

    def __init__(self) -> None:
        self._steps = self._nonfinite = self._updates = self._clipped = 0
        self._sums = np.zeros((2, 2))  # sum and number of the finite norms, before and after

    def add(self, window: Window) -> None:
        """Add the steps of a window."""
        updated = window.updated.any(axis=1)
        norms = window.global_norm[window.present.any(axis=1)]
        self._steps += len(window)
        self._nonfinite += int(np.sum(~np.isfinite(norms)))
        self._updates += int(updated.sum())
        self._clipped += int(window.clipped[updated].sum())
        for row, each in enumerate((norms, window.applied_global_norm[updated])):
            finite = each[np.isfinite(each)]
            self._sums[row] += finite.sum(), len(finite)

    def logs(self) -> dict[str, float]:
        """Return the keys to add to the epoch logs; empty without a step."""
        if not self._steps:
            return {}
        norm, applied = (float(total / count) if count else math.nan for total, count in self._sums)
        return {
            "grad_norm": norm,
            "grad_norm_applied": applied,
            "clip_fraction": self._clipped / self._updates if self._updates else 0.0,
            "nonfinite_steps": float(self._nonfinite),
        }
