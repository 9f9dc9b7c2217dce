"""Recorder of the statistics that the compiled train steps of JAX return."""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import keras
import numpy as np

from gradkeeper.callbacks.instrument.jax.observer import ArrayObserver, TracedStep
from gradkeeper.callbacks.instrument.jax.step_trace import Call, Clip, StepTrace
from gradkeeper.callbacks.instrument.optimizers import accumulates, clip_limit_of
from gradkeeper.callbacks.instrument.variable_names import names_in_call
from gradkeeper.callbacks.measurements.registry import Event, MeasurementContext
from gradkeeper.callbacks.recording.facts import facts_of
from gradkeeper.callbacks.recording.reader import Records, collect
from gradkeeper.callbacks.recording.rows import (
    LARGEST_EVERY,
    MISSING,
    Options,
    Rows,
    empty_row,
)
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.statistics.jax_gradients import l2_norms, statistics


@dataclass
class ArrayColumn:
    """Values of a statistic in NumPy, [steps, width]."""

    values: np.ndarray

    def read(self, row_indices: np.ndarray) -> np.ndarray:
        """Return the rows at these indices, [rows, width]."""
        return self.values[row_indices]


@dataclass
class JaxCallLog:
    """Statistics of an optimizer call; see `CallLog`."""

    optimizer: keras.optimizers.Optimizer
    round: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    clip_limit: float | None
    lacks_loss_scaling: bool = False
    applies_all: bool = False
    rings: dict[str, ArrayColumn] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """Float64 if a variable is wider than 32 bits, so that no norm overflows."""
        wide = any(keras.backend.standardize_dtype(v.dtype) == "float64" for v in self.variables)
        return "float64" if wide and jax.config.jax_enable_x64 else "float32"

    @property
    def columns(self) -> dict[int, int]:
        """Column of each recorded variable, by `id`."""
        return {id(variable): column for column, variable in enumerate(self.variables)}

    def by_column(self, values: jax.Array, variables: Sequence[Any]) -> jax.Array:
        """Arrange values of these variables, [rows, variables], by column."""
        found = [self.columns[id(each)] for each in variables]
        if found == list(range(len(self.names))):
            return values
        empty = jnp.full((len(values), len(self.names)), MISSING, values.dtype)
        return empty.at[:, jnp.array(found, int)].set(values)


# Index of the log, name, and number of values, for each part of a row.
Layout: TypeAlias = tuple[tuple[int, str, int], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """Statistics of a train step in one array. Each array that a step returns costs host time.

    Attributes:
        values: all values, [width].
        layout: the parts of `values`.
    """

    values: jax.Array
    layout: Layout = field(metadata={"static": True})


class JaxRecorder(ArrayObserver):
    """Recorder of gradient statistics on JAX.

    The compiled step returns the statistics of its optimizer calls in one array. `drain` copies the
    arrays of all steps since the last call to the host.

    Args:
        options: the recording options.
        model: the model, which names the variables.
        optimizers: the optimizers whose calls are recorded; None for all.
        compiled: whether the step is compiled; has no effect.

    Attributes:
        optimizer_logs: the log of each optimizer call, in the order of the first calls.
        loss: None: every row has the loss.
        hidden_layers: none.
    """

    loss = None

    def __init__(
        self,
        options: Options,
        model: keras.Model,
        *,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self.options = options
        self.optimizer_logs: list[JaxCallLog] = []
        self.hidden_layers: dict[str, None] = {}
        self._model = weakref.ref(model)
        self._every = options.every
        self._rows: deque[tuple[int, Row]] = deque()
        self._steps = 0
        self._order: tuple[str, ...] = ()
        self._facts: tuple[int, RunFacts] | None = None

    @property
    def measures_next(self) -> bool:  # type: ignore[override]
        """True if the next train step is measured."""
        return self._steps % self._every == 0

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` train steps."""
        self._every = period

    def measure_twice(self, twice: bool) -> None:
        """Do nothing: on JAX, the cost of measuring is not determined during the training."""

    def wait(self) -> int:
        """Return the total number of steps."""
        return self._steps

    def reset(self) -> None:
        """Discard the records, and restore the sampling that `options` specifies."""
        self._rows.clear()
        self._every = self.options.every

    def on_step(self, step: TracedStep, carry: Any) -> tuple[Any, Any]:
        return carry, self.row_of(step.trace)

    def end_step(self, outputs: Row | None, data: Any, state: Any) -> None:
        if outputs is not None:
            self._rows.append((self._steps, outputs))
        self._steps += 1

    def drain(self) -> Records | None:
        """Return the records of the rows since the last call; None if there are none."""
        if not self._rows:
            return None
        steps = np.array([step for step, _ in self._rows])
        rows = [row for _, row in self._rows]
        self._rows.clear()
        for log in self.optimizer_logs:
            log.rings = {}
        for layout in dict.fromkeys(row.layout for row in rows):
            self._read(layout, rows)
        if self._facts is None or self._facts[0] != len(self.optimizer_logs):
            facts = facts_of(self._model(), self.optimizer_logs, has_loss=True)
            self._facts = len(self.optimizer_logs), facts
        return collect(
            {0: self},
            Rows(np.arange(len(rows)), steps, 0),
            order=self._order,
            measurements=self.options.measurements,
            facts=self._facts[1],
        )

    def _read(self, layout: Layout, rows: Sequence[Row]) -> None:
        """Copy the rows with this layout to the columns of the logs."""
        chosen = [i for i, row in enumerate(rows) if row.layout == layout]
        values, end = to_host([rows[i].values for i in chosen]), 0
        for index, name, width in layout:
            start, end = end, end + width
            log = self.optimizer_logs[index]
            if name not in log.rings:
                missing = _missing(name, len(log.names))
                log.rings[name] = ArrayColumn(np.full((len(rows), width), missing, values.dtype))
            log.rings[name].values[chosen] = values[:, start:end]

    def row_of(self, trace: StepTrace) -> Row | None:
        """Return the statistics of a step, traced; None without an observed optimizer call."""
        parts: dict[tuple[int, str], jax.Array] = {}
        for call in trace.calls:
            if not self.observes(call.optimizer):
                continue
            self.has_seen_gradients = True
            index = self._log_of(call)
            if self.optimizer_logs[index].names:
                found = self._statistics(self.optimizer_logs[index], call, trace)
                parts |= {(index, name): values for name, values in found.items()}
        if not parts:
            return None
        layout = tuple((*key, len(values)) for key, values in parts.items())
        return Row(jnp.concatenate(list(parts.values())), layout)

    def _statistics(self, log: JaxCallLog, call: Call, trace: StepTrace) -> dict[str, jax.Array]:
        columns, dtype = log.columns, log.dtype
        values = zip(call.gradients, call.variables, call.before, call.after, strict=True)
        present = [each for each in values if each[0] is not None and id(each[1]) in columns]
        gradients = [_true(gradient, call.scale, dtype) for gradient, *_ in present]
        variables = [variable for _, variable, *_ in present]
        # The number of the call counts all steps, of which one in `every` is measured.
        period, every = LARGEST_EVERY * self.options.every, self.options.every
        largest = self.options.largest or call.number % period < every
        measured = statistics(gradients, dtype, largest)
        unknown = jnp.array(jnp.nan, dtype)
        of_step = [
            unknown if v is None else jnp.asarray(v, dtype)
            for v in (trace.loss, call.learning_rate)
        ]
        row = {
            "measured": jnp.concatenate(
                [log.by_column(measured, variables).reshape(-1), jnp.stack(of_step)]
            )
        }
        if trace.is_refused is not None:
            row["allowed"] = jnp.where(trace.is_refused, 0, 1).astype(dtype).reshape(1)
        if call.scale is not None:
            row["loss_scale"] = jnp.asarray(call.scale, dtype).reshape(1)
        if not call.is_plain:
            for number, clip in enumerate(call.clips):
                row |= self._of_clipping(log, call, number, clip)
        context = MeasurementContext(call, dtype, norms=measured[0])
        row |= self._measure(
            "gradients", log, list(zip(gradients, variables, strict=True)), context
        )
        updates = [(after - before, v) for _, v, before, after in present]
        weights = MeasurementContext(call, dtype, weights=[before for *_, before, _ in present])
        return row | self._measure("update", log, updates, weights)

    def _of_clipping(
        self, log: JaxCallLog, call: Call, number: int, clip: Clip
    ) -> dict[str, jax.Array]:
        chosen = [i for i, v in enumerate(clip.variables) if id(v) in log.columns]
        variables = [clip.variables[i] for i in chosen]
        norms = l2_norms([clip.left[i] for i in chosen], log.dtype)
        is_update = True if clip.is_update is None else clip.is_update
        norms = jnp.where(is_update, norms, MISSING)
        row = {f"applied_norm {number}": log.by_column(norms[None], variables)[0]}
        if accumulates(call.optimizer):
            before = l2_norms([clip.entered[i] for i in chosen], log.dtype)
            total = jnp.sqrt(jnp.sum(jnp.square(before)))
            row[f"unclipped_norm {number}"] = jnp.where(is_update, total, jnp.nan).reshape(1)
        return row

    def _measure(
        self, event: Event, log: JaxCallLog, pairs: list[Any], context: MeasurementContext
    ) -> dict[str, jax.Array]:
        row = {}
        for each in self.options.measurements:
            if each.event == event:
                values = jnp.asarray(each.compute(pairs, context), log.dtype)
                variables = [variable for _, variable in pairs]
                row[each.name] = log.by_column(values.reshape(1, len(pairs)), variables)[0]
        return row

    def _log_of(self, call: Call) -> int:
        for index, log in enumerate(self.optimizer_logs):
            if log.optimizer is call.optimizer and log.round == call.round:
                return index
        model = self._model()
        trained = [] if model is None else model.trainable_variables
        names, self._order = names_in_call(model, trained, call.variables, self.options.layers)
        chosen = [i for i, name in enumerate(names) if self.options.selects(name)]
        log = JaxCallLog(
            call.optimizer,
            call.round,
            tuple(names[i] for i in chosen),
            tuple(call.variables[i] for i in chosen),
            clip_limit_of(call.optimizer),
            applies_all=call.is_plain or not call.clips,
        )
        self.optimizer_logs.append(log)
        return len(self.optimizer_logs) - 1


def _true(gradient: Any, scale: Any, dtype: str) -> jax.Array:
    """Return the gradient without loss scale."""
    if scale is None:
        return gradient
    return gradient.astype(jnp.promote_types(gradient.dtype, dtype)) / scale


def _missing(name: str, variables: int) -> float | np.ndarray:
    """Return the values of a statistic in the row of a step without it."""
    if name == "measured":
        return empty_row(variables)
    is_scalar = name in ("allowed", "loss_scale") or name.startswith("unclipped_norm")
    return np.nan if is_scalar else MISSING


def to_host(arrays: Sequence[jax.Array]) -> np.ndarray:
    """Copy arrays of equal shape to the host, [arrays, ...]."""
    if jax.default_backend() != "cpu":
        for each in arrays:
            each.copy_to_host_async()
    return np.stack([np.asarray(each) for each in arrays])
