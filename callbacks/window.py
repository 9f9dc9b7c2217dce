"""Window of consecutive train steps: the input of rules, sinks and the history."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeAlias, TypeVar

import numpy as np

from gradkeeper._arguments import number
from gradkeeper.callbacks.activations import Activations
from gradkeeper.callbacks.noise_scale import NoiseScale
from gradkeeper.callbacks.run_facts import RunFacts

# Clipping changes a norm by more than rounding does.
_CLIPPED_BELOW = 1.0 - 1e-4

# Bins of the histograms of log10 of the magnitude, half a decade each. The first bin includes zeros
# and all smaller magnitudes, the last bin all larger ones. NaN and Inf are not counted.
EDGES = np.arange(-12.0, 4.5, 0.5)
BINS = len(EDGES) - 1

# Edges, [bins + 1], and counts between them, [bins].
Histogram: TypeAlias = tuple[np.ndarray, np.ndarray]

_BUILT_IN = ("norm", "applied_norm", "max_abs", "nonfinite", "update_norm", "weight_norm")

_Result = TypeVar("_Result")


def _once_per_window(compute: Callable[[Any], _Result]) -> Callable[[Any], _Result]:
    """Call `compute` with the window of an object, and store the result in the window."""
    name = compute.__name__

    @wraps(compute)
    def stored(self: "WindowStatistics") -> _Result:
        window = self._window
        if name not in vars(window):
            vars(window)[name] = compute(window)
        return vars(window)[name]

    return stored


class WindowStatistics:
    """Statistics that a window and a history have in common, as properties."""

    @property
    def _window(self) -> "Window":
        raise NotImplementedError

    def value(self, name: str) -> np.ndarray:
        """Return a statistic of each variable by name, [steps, variables]; NaN if not recorded.

        Args:
            name: `norm`, `applied_norm`, `max_abs`, `nonfinite`, `update_norm`, `weight_norm`, or
                the name of a user-defined measurement.
        """
        window = self._window
        if name in window.values:
            return window.values[name]
        return np.full((len(window), len(window.variables)), np.nan, np.float32)

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of the user-defined measurements in `values`."""
        return tuple(name for name in self._window.values if name not in _BUILT_IN)

    @property
    def loss(self) -> np.ndarray:
        """Loss of the train step, float64 [steps]; NaN if unknown."""
        return self._window.scalar("loss")

    @property
    def norms(self) -> np.ndarray:
        """L2 norms before clipping, unscaled, [steps, variables]; NaN where not `present`."""
        return self._window.value("norm")

    @property
    def applied_norms(self) -> np.ndarray:
        """L2 norms after clipping, [steps, variables]; NaN where not `updated`."""
        return self._window.value("applied_norm")

    @property
    def max_abs(self) -> np.ndarray:
        """Largest magnitude of an element before clipping, [steps, variables]."""
        return self._window.value("max_abs")

    @property
    @_once_per_window
    def nonfinite(self) -> np.ndarray:
        """Number of elements that are NaN or infinite, int64 [steps, variables]."""
        return np.nan_to_num(self._window.value("nonfinite")).astype(np.int64)

    @property
    @_once_per_window
    def layers(self) -> list[str]:
        """Paths of the layers that own a variable, in the order of the model."""
        return list(dict.fromkeys(layer_of(variable) for variable in self._window.variables))

    @property
    @_once_per_window
    def layer_norms(self) -> np.ndarray:
        """L2 norm before clipping over all variables of each layer, [steps, layers]."""
        window = self._window
        return window.by_layer(window.norms, window.present)

    @property
    @_once_per_window
    def global_norm(self) -> np.ndarray:
        """L2 norm before clipping over all variables, [steps]."""
        window = self._window
        return total_norm(window.norms, window.present)

    @property
    @_once_per_window
    def applied_global_norm(self) -> np.ndarray:
        """L2 norm after clipping over all variables, [steps]; NaN without an update."""
        window = self._window
        return total_norm(window.applied_norms, window.updated)

    @property
    @_once_per_window
    def replica_global_norms(self) -> np.ndarray:
        """L2 norm over all variables for each replica, [steps, replicas]."""
        window = self._window
        norms = window.replica_norms
        rows = [total_norm(norms[:, r], window.present) for r in range(norms.shape[1])]
        return np.stack(rows, axis=1) if rows else np.zeros((len(window), 0))

    @property
    @_once_per_window
    def update_ratios(self) -> np.ndarray:
        """Update norm divided by weight norm before the update, [steps, variables]."""
        window = self._window
        update, weight = window.value("update_norm"), window.value("weight_norm")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(weight > 0, update / weight, np.nan)

    @property
    @_once_per_window
    def skipped(self) -> np.ndarray:
        """True where a guard, or loss scaling after overflow, skipped the step, bool [steps]."""
        window = self._window
        scaled = np.isfinite(window.scalar("loss_scale"))
        overflow = (window.present & (window.nonfinite > 0)).any(axis=1)
        refused = window.scalar("allowed") == 0
        return (refused | (scaled & overflow)) & ~window.updated.any(axis=1)

    @property
    @_once_per_window
    def accumulated(self) -> np.ndarray:
        """True where the gradient was accumulated and not applied, bool [steps]."""
        window = self._window
        return window.present.any(axis=1) & ~window.updated.any(axis=1) & ~window.skipped

    @property
    @_once_per_window
    def clip_coefficient(self) -> np.ndarray:
        """Norm after clipping divided by norm before clipping, [steps]; 1 if unchanged."""
        window = self._window
        entered = window.scalar("unclipped_norm")
        entered = np.where(np.isnan(entered), window.global_norm, entered)
        applied = window.applied_global_norm
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(entered > 0, applied / entered, np.where(applied == 0, 1.0, np.nan))

    @property
    @_once_per_window
    def clipped(self) -> np.ndarray:
        """True where the clipping of the optimizer changed a gradient, bool [steps]."""
        window = self._window
        gathered = ~np.isnan(window.scalar("unclipped_norm"))
        by_variable = np.any(window.applied_norms < window.norms * _CLIPPED_BELOW, axis=1)
        return np.where(gathered, window.clip_coefficient < _CLIPPED_BELOW, by_variable)

    def noise_scale(self, batch_size: float) -> NoiseScale:
        """Estimate the simple gradient noise scale; see `NoiseScale`.

        The estimates compare the gradients of the replicas with their sum, or micro-batches with
        the accumulated gradient. With several workers, the window must have the replicas of all
        workers.

        Args:
            batch_size: number of examples in the batch of a train step: the global batch of all
                replicas, or a micro-batch of gradient accumulation. With 1, the noise scale is in
                batches.

        Raises:
            ValueError: if the window has neither several replicas nor accumulated gradients, or
                `batch_size` is not positive.
        """
        number("batch_size", batch_size, "(0, inf)")
        window = self._window
        found = NoiseScale.of(window, batch_size)
        if not len(found):
            raise ValueError(
                "noise_scale() needs finite gradients of several replicas (tf.distribute), or of "
                "the micro-batches of an update (gradient_accumulation_steps, every_n_steps=1). "
                f"Received: {len(window)} steps of {max(window.replica_norms.shape[1], 1)} "
                f"replica(s), {int(window.accumulated.sum())} with an accumulated gradient"
            )
        return found

    @property
    def clip_fraction(self) -> float:
        """Share of the updates that clipping changed, 0 to 1."""
        window = self._window
        applied = window.updated.any(axis=1)
        return float(window.clipped[applied].mean()) if applied.any() else 0.0


@dataclass(frozen=True)
class Window(WindowStatistics):
    """Statistics of consecutive recorded train steps, oldest first.

    A rule receives a run as a sequence of windows. Steps that were not measured (`every_n_steps`,
    `budget`) have no row.

    Attributes:
        steps: train steps, counted from 0, int64 [steps].
        variables: paths of the variables, in the order of the model.
        present: True where a gradient reached the optimizer, bool [steps, variables].
        updated: True where a gradient was applied, bool [steps, variables].
        values: statistics per variable by name, float [steps, variables] each: `norm`,
            `applied_norm`, `max_abs`, `nonfinite`, and on request `update_norm` and
            `weight_norm`. NaN if missing.
        scalars: statistics per step by name, float64 [steps] each: `loss`, `learning_rate`,
            `loss_scale`, `unclipped_norm` (norm before clipping, if clipping did not act on the
            gradient of this step), `clip_limit` (limit of the optimizer's clipping),
            `missing_loss_scale` (loss scale by which the loss was not multiplied). NaN if
            missing.
        replica_norms: L2 norms of the gradient of each replica, [steps, replicas, variables]; 0
            replicas on a single device. With several workers, the replicas of this worker.
        first_replica: index of the first of these replicas among all replicas in sync.
        replica_losses: loss of each replica, float64 [steps, replicas]; 0 replicas on a single
            device. Only in windows that are passed to rules.
        calls: one window per optimizer call, if a train step has several calls; in the order of
            the first calls, each with the variables of that call. Only in windows that are passed
            to rules.
        facts: other facts about the run.
        activations: statistics of the layer outputs; without calls unless "activations" was
            measured.
    """

    steps: np.ndarray
    variables: tuple[str, ...]
    present: np.ndarray
    updated: np.ndarray
    values: Mapping[str, np.ndarray]
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    replica_norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    first_replica: int = 0
    replica_losses: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    calls: tuple["Window", ...] = ()
    facts: RunFacts = field(default_factory=RunFacts)
    activations: Activations = field(default_factory=Activations)

    def __post_init__(self) -> None:
        if not self.activations.names:
            object.__setattr__(self, "activations", Activations.none(len(self.steps)))
        if not self.replica_norms.size:
            none = np.zeros((len(self.steps), 0, len(self.variables)), np.float32)
            object.__setattr__(self, "replica_norms", none)
        if not self.replica_losses.size:
            object.__setattr__(self, "replica_losses", np.zeros((len(self.steps), 0)))

    @property
    def _window(self) -> "Window":
        return self

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, rows: slice | np.ndarray) -> "Window":
        """Return a window with some of the rows: a slice, row indices or a mask."""
        chosen = change_rows(self, lambda values: values[rows])
        return dataclasses.replace(chosen, calls=tuple(call[rows] for call in self.calls))

    def scalar(self, name: str) -> np.ndarray:
        """Return a statistic per step, [steps]; NaN if not recorded."""
        return self.scalars[name] if name in self.scalars else np.full(len(self), np.nan)

    @cached_property
    def layer_columns(self) -> list[np.ndarray]:
        """Column indices of the variables of each layer."""
        columns: dict[str, list[int]] = {layer: [] for layer in self.layers}
        for column, name in enumerate(self.variables):
            columns[layer_of(name)].append(column)
        return [np.array(each) for each in columns.values()]

    def by_layer(self, norms: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Combine norms per variable into norms per layer, [steps, layers]; NaN if missing."""
        if not self.layers:
            return np.zeros((len(self), 0))
        order = np.concatenate(self.layer_columns)
        starts = np.cumsum([0, *map(len, self.layer_columns[:-1])])
        squares = np.square(np.where(there, norms, 0.0).astype(np.float64))[:, order]
        sums = np.add.reduceat(squares, starts, axis=1)
        known = np.logical_or.reduceat(there[:, order], starts, axis=1)
        return np.where(known, np.sqrt(sums), np.nan)

    @classmethod
    def concatenate(cls, windows: Sequence["Window"]) -> "Window":
        """Concatenate windows. Variables that a window lacks are missing in its steps."""
        if not windows:
            none = np.zeros((0, 0), bool)
            return cls(np.zeros(0, np.int64), (), none, none, {})
        variables = tuple(dict.fromkeys(name for each in windows for name in each.variables))
        wide = [each.with_variables(variables) for each in windows]
        values = dict.fromkeys(name for each in wide for name in each.values)
        scalars = dict.fromkeys(name for each in wide for name in each.scalars)
        replicas = max(each.replica_norms.shape[1] for each in wide)
        return cls(
            np.concatenate([each.steps for each in wide]),
            variables,
            np.concatenate([each.present for each in wide]),
            np.concatenate([each.updated for each in wide]),
            {name: np.concatenate([each.value(name) for each in wide]) for name in values},
            {name: np.concatenate([each.scalar(name) for each in wide]) for name in scalars},
            np.concatenate([each._with_replicas(replicas) for each in wide]),
            max(each.first_replica for each in wide),
            facts=wide[-1].facts,
            activations=Activations.concatenate([each.activations for each in wide]),
        )

    def with_variables(self, variables: tuple[str, ...]) -> "Window":
        """Return the window with these columns. Added columns are missing in every step."""
        if variables == self.variables:
            return self
        columns = [variables.index(name) for name in self.variables]

        def widen(values: np.ndarray) -> np.ndarray:
            fill = False if values.dtype == bool else np.nan
            return widened(values, columns, len(variables), fill)

        return change_columns(self, variables, widen)

    def _with_replicas(self, replicas: int) -> np.ndarray:
        more = replicas - self.replica_norms.shape[1]
        return np.pad(self.replica_norms, ((0, 0), (0, more), (0, 0)), constant_values=np.nan)


def layer_of(variable: str) -> str:
    """Return the path of the layer that owns the variable with this path."""
    return variable.rpartition("/")[0] or variable


def total_norm(norms: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the L2 norm over the present columns, [steps]; NaN if no column is present."""
    squares = np.square(np.where(present, norms, 0.0).astype(np.float64))
    return np.where(present.any(axis=1), np.sqrt(squares.sum(axis=1)), np.nan)


def change_rows(window: Window, change: Callable[[np.ndarray], np.ndarray]) -> Window:
    """Return the window with `change` applied to each array, whose first axis is the steps."""
    return dataclasses.replace(
        window,
        steps=change(window.steps),
        present=change(window.present),
        updated=change(window.updated),
        values={name: change(value) for name, value in window.values.items()},
        scalars={name: change(value) for name, value in window.scalars.items()},
        replica_norms=change(window.replica_norms),
        replica_losses=change(window.replica_losses),
        activations=window.activations.change_rows(change),
    )


def change_columns(
    window: Window, variables: tuple[str, ...], change: Callable[[np.ndarray], np.ndarray]
) -> Window:
    """Return the window with `change` applied to each array whose last axis is the variables."""
    return dataclasses.replace(
        window,
        variables=variables,
        present=change(window.present),
        updated=change(window.updated),
        values={name: change(value) for name, value in window.values.items()},
        replica_norms=change(window.replica_norms),
    )


def widened(values: np.ndarray, columns: list[int], width: int, fill: float) -> np.ndarray:
    """Move the columns (last axis) to positions `columns` of `width`, and fill the others."""
    wide = np.full((*values.shape[:-1], width), fill, values.dtype)
    wide[..., columns] = values
    return wide
