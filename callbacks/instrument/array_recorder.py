"""Recorder of the statistics of train steps on JAX and torch."""

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from gradkeeper.callbacks.instrument.array_step import (
    ArrayObserver,
    Call,
    Clip,
    ObservedStep,
)
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
from gradkeeper.callbacks.statistics.array_gradients import (
    joined,
    l2_norms,
    statistics,
    to_host,
    wait_for,
    widest_dtype,
)


@dataclass
class ArrayColumn:
    """Values of a statistic in NumPy, [steps, width]."""

    values: np.ndarray

    def read(self, row_indices: np.ndarray) -> np.ndarray:
        """Return the rows at these indices, [rows, width]."""
        return self.values[row_indices]


@dataclass
class ArrayCallLog:
    """Statistics of an optimizer call; see `CallLog`."""

    optimizer: keras.optimizers.Optimizer
    round: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    clip_limit: float | None
    lacks_loss_scaling: bool = False
    applies_all: bool = False
    rings: dict[str, ArrayColumn] = field(default_factory=dict)

    @cached_property
    def dtype(self) -> str:
        """Float64 if a variable is wider than 32 bits, so that no norm overflows."""
        wide = any(keras.backend.standardize_dtype(v.dtype) == "float64" for v in self.variables)
        return widest_dtype() if wide else "float32"

    @cached_property
    def columns(self) -> dict[int, int]:
        """Column of each recorded variable, by `id`."""
        return {id(variable): column for column, variable in enumerate(self.variables)}

    def by_column(self, values: Any, variables: Sequence[Any]) -> Any:
        """Arrange values of these variables, [rows, variables], by column."""
        found = [self.columns[id(each)] for each in variables]
        if found == list(range(len(self.names))):
            return values
        missing = ops.full((values.shape[0], 1), MISSING, values.dtype)
        places = [found.index(i) if i in found else len(found) for i in range(len(self.names))]
        return ops.take(ops.concatenate([values, missing], axis=1), places, axis=1)


# Index of the log, name, and number of values, for each part of a row.
Layout: TypeAlias = tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Row:
    """Statistics of a train step in one array. Each array that a step returns costs host time.

    Attributes:
        values: all values, [width].
        layout: the parts of `values`.
    """

    values: Any
    layout: Layout


class ArrayRecorder(ArrayObserver):
    """Recorder of gradient statistics on JAX and torch.

    A step returns the statistics of its optimizer calls in one array. `drain` copies the arrays of
    all steps since the last call to the host.

    Args:
        options: the recording options.
        model: the model, which names the variables.
        optimizers: the optimizers whose calls are recorded; None for all.
        compiled: whether the step is compiled; has no effect.

    Attributes:
        optimizer_logs: the log of each optimizer call, in the order of the first calls.
        loss: None: the loss is part of the row.
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
        self.optimizer_logs: list[ArrayCallLog] = []
        self.hidden_layers: dict[str, None] = {}
        self.needs_values = any(each.event == "update" for each in options.measurements)
        self._model = weakref.ref(model)
        self._every = options.every
        self._rows: deque[tuple[int, Row]] = deque()
        self._steps = 0
        self._order: tuple[str, ...] = ()
        self._has_loss = True
        self._facts: tuple[tuple[int, bool], RunFacts] | None = None

    @property
    def measures_next(self) -> bool:  # type: ignore[override]
        """True if the next train step is measured."""
        return self._steps % self._every == 0

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` train steps."""
        self._every = period

    def measure_twice(self, twice: bool) -> None:
        """Do nothing: measured steps are compared with unmeasured ones."""

    def wait(self, result: Any = None) -> int:
        """Wait for the measured train steps and for `result`; return the total number of steps."""
        wait_for([result, self._rows[-1][1].values if self._rows else None])
        return self._steps

    @property
    def steps_per_call(self) -> int:
        """Return the number of train steps in a call of the train function."""
        # On torch, Keras trains one step in each call.
        is_jax = keras.backend.backend() == "jax"
        return getattr(self._model(), "steps_per_execution", 1) if is_jax else 1

    def reset(self) -> None:
        """Discard the records, and restore the sampling that `options` specifies."""
        self._rows.clear()
        self._every = self.options.every

    def on_step(self, step: ObservedStep, carry: Any) -> tuple[Any, Any]:
        return carry, self._row_of(step)

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
        key = len(self.optimizer_logs), self._has_loss
        if self._facts is None or self._facts[0] != key:
            facts = facts_of(self._model(), self.optimizer_logs, has_loss=self._has_loss)
            self._facts = key, facts
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

    def _row_of(self, step: ObservedStep) -> Row | None:
        """Return the statistics of a step; None without an observed optimizer call."""
        parts: dict[tuple[int, str], Any] = {}
        for call in step.trace.calls:
            if not self.observes(call.optimizer):
                continue
            self.has_seen_gradients = True
            index = self._log_of(call)
            if self.optimizer_logs[index].names:
                found = self._statistics(self.optimizer_logs[index], call, step)
                parts |= {(index, name): values for name, values in found.items()}
        if not parts:
            return None
        layout = tuple((*key, values.shape[0]) for key, values in parts.items())
        values = list(parts.values())
        return Row(values[0] if len(values) == 1 else ops.concatenate(values), layout)

    def _statistics(self, log: ArrayCallLog, call: Call, step: ObservedStep) -> dict[str, Any]:
        trace, columns, dtype = step.trace, log.columns, log.dtype
        values = zip(call.gradients, call.variables, call.before, call.after, strict=True)
        present = [each for each in values if each[0] is not None and id(each[1]) in columns]
        gradients = [_true(gradient, call.scale, dtype) for gradient, *_ in present]
        variables = [variable for _, variable, *_ in present]
        # The number counts all steps, of which one in `every` is measured.
        period, every = LARGEST_EVERY * self.options.every, self.options.every
        number = call.number if step.is_compiled else self._steps
        largest = self.options.largest or number % period < every
        measured = statistics(gradients, dtype, largest)
        self._has_loss &= trace.loss is not None
        of_step = [
            ops.full((), np.nan, dtype) if value is None else value
            for value in (trace.loss, call.learning_rate)
        ]
        row = {"measured": joined([log.by_column(measured, variables), *of_step], dtype)}
        if trace.is_refused is not None:
            row["allowed"] = ops.reshape(1 - ops.cast(trace.is_refused, dtype), [1])
        if call.scale is not None:
            row["loss_scale"] = ops.reshape(ops.cast(call.scale, dtype), [1])
        if not call.is_plain:
            for number, clip in enumerate(call.clips):
                row |= self._of_clipping(log, call, number, clip)
        context = MeasurementContext(call, dtype, norms=measured[0])
        row |= self._measure(
            "gradients", log, list(zip(gradients, variables, strict=True)), context
        )
        if not self.needs_values:
            return row
        updates = [(after - before, v) for _, v, before, after in present]
        weights = MeasurementContext(call, dtype, weights=[before for *_, before, _ in present])
        return row | self._measure("update", log, updates, weights)

    def _of_clipping(
        self, log: ArrayCallLog, call: Call, number: int, clip: Clip
    ) -> dict[str, Any]:
        chosen = [i for i, v in enumerate(clip.variables) if id(v) in log.columns]
        variables = [clip.variables[i] for i in chosen]
        norms = l2_norms([clip.left[i] for i in chosen], log.dtype)
        is_update = clip.is_update
        norms = norms if is_update is None else ops.where(is_update, norms, MISSING)
        row = {f"applied_norm {number}": log.by_column(norms[None], variables)[0]}
        if accumulates(call.optimizer):
            before = l2_norms([clip.entered[i] for i in chosen], log.dtype)
            total = ops.norm(before)
            total = total if is_update is None else ops.where(is_update, total, np.nan)
            row[f"unclipped_norm {number}"] = ops.reshape(total, [1])
        return row

    def _measure(
        self, event: Event, log: ArrayCallLog, pairs: list[Any], context: MeasurementContext
    ) -> dict[str, Any]:
        row = {}
        for each in self.options.measurements:
            if each.event == event:
                values = ops.cast(each.compute(pairs, context), log.dtype)
                variables = [variable for _, variable in pairs]
                row[each.name] = log.by_column(ops.reshape(values, [1, len(pairs)]), variables)[0]
        return row

    def _log_of(self, call: Call) -> int:
        for index, log in enumerate(self.optimizer_logs):
            if log.optimizer is call.optimizer and log.round == call.round:
                return index
        model = self._model()
        trained = [] if model is None else model.trainable_variables
        names, self._order = names_in_call(model, trained, call.variables, self.options.layers)
        chosen = [i for i, name in enumerate(names) if self.options.selects(name)]
        log = ArrayCallLog(
            call.optimizer,
            call.round,
            tuple(names[i] for i in chosen),
            tuple(call.variables[i] for i in chosen),
            clip_limit_of(call.optimizer),
            applies_all=call.is_plain or not (call.clips or _may_not_apply(call.optimizer)),
        )
        self.optimizer_logs.append(log)
        return len(self.optimizer_logs) - 1


def _may_not_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if a call of the optimizer may change no variable."""
    return accumulates(optimizer) or isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _true(gradient: Any, scale: Any, dtype: str) -> Any:
    """Return the gradient without loss scale."""
    if scale is None:
        return gradient
    return ops.cast(gradient, keras.backend.result_type(gradient.dtype, dtype)) / scale


def _missing(name: str, variables: int) -> float | np.ndarray:
    """Return the values of a statistic in the row of a step without it."""
    if name == "measured":
        return empty_row(variables)
    is_scalar = name in ("allowed", "loss_scale") or name.startswith("unclipped_norm")
    return np.nan if is_scalar else MISSING
