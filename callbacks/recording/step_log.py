"""Log of the train steps of one replica: rows of statistics in ring buffers.

A row has three values per variable and two values of the step. Separate rows would take more
operations, whose cost is measurable in a step of a few milliseconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.conditional import when
from gradkeeper.callbacks.instrument.optimizer_call import GradAndVar
from gradkeeper.callbacks.instrument.replica import TraceScope, make_variable
from gradkeeper.callbacks.recording.ring_buffer import MISSING, Ring
from gradkeeper.callbacks.recording.settings import LARGEST_EVERY, Options
from gradkeeper.callbacks.statistics.gradients import is_branchless
from gradkeeper.callbacks.statistics.groups import Review

# Statistics of each variable, followed by those of the train step.
MEASURED = ("norm", "max_abs", "nonfinite")
OF_STEP = ("loss", "learning_rate")


def empty_row(variables: int) -> np.ndarray:
    """Return the row of a step that has written nothing, [3 * variables + 2]."""
    nothing = np.full(len(MEASURED) * variables, MISSING)
    return np.concatenate([nothing, np.full(len(OF_STEP), np.nan)])


def row_of(
    measured: tf.Tensor, loss: tf.Tensor | None, learning_rate: tf.Tensor | None
) -> tf.Tensor:
    """Return the row, [3 * variables + 2], in the dtype of `measured`.

    Args:
        measured: the statistics of each variable, [3, variables].
        loss: a scalar; None if the loss is unknown or recorded elsewhere.
        learning_rate: a scalar; None if there is none.
    """
    unknown = tf.constant(float("nan"), measured.dtype)
    scalars = [
        unknown if each is None else tf.cast(each, measured.dtype) for each in (loss, learning_rate)
    ]
    return tf.concat([tf.reshape(measured, [-1]), tf.stack(scalars)], axis=0)


def by_variable(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics by name, [steps, variables], of rows [steps, 3 * variables + 2]."""
    measured = rows[:, : -len(OF_STEP)].reshape(len(rows), len(MEASURED), -1)
    return {name: measured[:, i] for i, name in enumerate(MEASURED)}


def of_step(rows: np.ndarray, name: str) -> np.ndarray:
    """Return the statistic of this name of each train step, [steps]."""
    return rows[:, OF_STEP.index(name) - len(OF_STEP)]


# Name of the ring buffer for the statistics of every measured step.
MEASURED_ROW = "measured"

# A mask with more bits than the number of any train step.
_NEVER = 2**62 - 1


@dataclass
class OptimizerLog:
    """Ring buffers for the statistics of an optimizer call, one row per train step.

    Attributes:
        optimizer: the optimizer that was called.
        round: number of earlier calls in the same train step for some of the variables.
        names: the names of the recorded variables, one per column.
        variables: the recorded variables.
        keys: `id` of each variable of the call, recorded or not.
        clip_limit: the limit of the optimizer's own clipping; None without clipping.
        lacks_loss_scaling: whether the optimizer divides by a loss scale that the loss was not multiplied
            by.
        applies_all: whether the gradients before clipping are applied unchanged.
        rings: ring buffers by statistic.
        histograms: ring buffer with one row for the latest histograms; None without histograms.
    """

    optimizer: keras.optimizers.Optimizer
    round: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    keys: tuple[int, ...]
    clip_limit: float | None
    lacks_loss_scaling: bool = False
    applies_all: bool = False
    rings: dict[str, Ring] = field(default_factory=dict)
    histograms: Ring | None = None

    @cached_property
    def columns(self) -> dict[int, int]:
        """Return the column of each recorded variable, by `id`."""
        return {id(variable): column for column, variable in enumerate(self.variables)}

    @cached_property
    def dtype(self) -> tf.DType:
        """Return float64 if a variable is wider than 32 bits, so that no norm overflows.

        Return float32 otherwise.
        """
        wide = any(tf.as_dtype(v.dtype).size > 4 for v in self.variables)
        return tf.float64 if wide else tf.float32


class ReplicaLog:
    """Step counters and optimizer logs of one replica.

    Args:
        options: the recording options.
        device: the replica's device; None for TensorFlow's choice.
        counters: the device of the counters.
    """

    def __init__(self, options: Options, device: str | None, *, counters: str | None) -> None:
        self._options = options
        self._device = device
        self._seen = make_variable(np.array(0), counters)
        self._written, self._stamps = self._seen, None
        if options.switchable:
            self._written = make_variable(np.array(0), counters)
            self._stamps = Ring(options.capacity, 1, tf.int64, empty=MISSING, device=counters)
        self._period = make_variable(np.array(options.every), counters)
        self._largest_every = 0 if options.largest or is_branchless() else LARGEST_EVERY
        # A step is reviewed if its number has none of these bits. A remainder by a variable is
        # equivalent, but makes the 15 ms step of a GRU 0.1 to 0.3 ms longer.
        self._review_mask = make_variable(np.array(self._usual_mask), counters)
        self.optimizer_logs: list[OptimizerLog] = []
        self.row_index: tf.Tensor  # [1]
        self._measuring: tf.Tensor
        # The trace scope of the current code, and the one in which the step began.
        self._scope: TraceScope | None = None
        self._step_scope: TraceScope | None = None
        self._noted_loss: tf.Tensor | None = None
        self._has_noted = False
        self._always_notes = True
        self.loss: Ring | None = None  # for steps without a row for the loss
        self.review: Review | None = None
        self._read = 0

    def measured(self, optimizer_log: OptimizerLog) -> Ring:
        """Return the optimizer_log's ring buffer for the rows of measured steps; see `row_of`."""
        if MEASURED_ROW not in optimizer_log.rings:
            empty = empty_row(len(optimizer_log.names))
            optimizer_log.rings[MEASURED_ROW] = self._ring(len(empty), optimizer_log.dtype, empty)
        return optimizer_log.rings[MEASURED_ROW]

    def per_variable(self, optimizer_log: OptimizerLog, name: str) -> Ring:
        """Return the optimizer_log's ring buffer for a statistic of each variable."""
        if name not in optimizer_log.rings:
            optimizer_log.rings[name] = self._ring(
                len(optimizer_log.names), optimizer_log.dtype, MISSING
            )
        return optimizer_log.rings[name]

    def per_step(self, optimizer_log: OptimizerLog, name: str) -> Ring:
        """Return the optimizer_log's ring buffer for a statistic of the step."""
        if name not in optimizer_log.rings:
            optimizer_log.rings[name] = self._ring(1, tf.float64, np.nan)
        return optimizer_log.rings[name]

    def histograms(self, optimizer_log: OptimizerLog, bins: int) -> Ring:
        """Return the optimizer_log's ring buffer for histograms: first the step number, then the counts."""
        if optimizer_log.histograms is None:
            width = 1 + bins * len(optimizer_log.names)
            optimizer_log.histograms = Ring(
                1, width, tf.float64, empty=MISSING, device=self._device
            )
        return optimizer_log.histograms

    def note_loss(self, value: tf.Tensor) -> None:
        """Record the loss with the step's row, or at the end of the step.

        Inside a nested `tf.function`, write the loss immediately, because outer graphs cannot read
        it.
        """
        self._has_noted = True
        if self._step_scope == TraceScope.current():
            self._noted_loss = value
        else:
            self.enter_scope()
            self._write_loss(value)

    def noted_loss(self, dtype: tf.DType) -> tf.Tensor | None:
        """Return the pending loss, which the caller must then record.

        Return None if no loss is pending, if this graph cannot read the loss, or if `dtype` is too
        narrow for it.
        """
        loss = self._noted_loss
        if loss is None or self._step_scope != TraceScope.current() or loss.dtype.size > dtype.size:
            return None
        self._noted_loss = None
        return loss

    @property
    def has_loss(self) -> bool:
        """Return True if every step that was traced or run so far had a loss."""
        return self._has_noted and self._always_notes

    def _write_loss(self, value: tf.Tensor) -> None:
        if self.loss is None:
            self.loss = self._ring(1, tf.float64, np.nan)
        self.loss.write(self.row_index, value)

    def optimizer_log(
        self, optimizer: Any, round: int, variables: Sequence[Any]
    ) -> OptimizerLog | None:
        """Return the optimizer_log of this optimizer call; None if there is none yet."""
        keys = set(map(id, variables))
        alike = (t for t in self.optimizer_logs if t.optimizer is optimizer and t.round == round)
        return next((each for each in alike if keys <= set(each.keys)), None)

    def begin_step(self) -> None:
        """Begin a train step, in the graph."""
        self._scope, self._step_scope, self._noted_loss = None, TraceScope.current(), None
        self._has_noted = False
        self.enter_scope()

    def enter_scope(self) -> None:
        """Read the row index and the sampling flags into the current FuncGraph.

        A train step may call a `tf.function`. Tensors that the function captures from the outer
        graph have the values of the step in which the function was traced.
        """
        scope = TraceScope.current()
        if self._scope == scope:
            return
        self._scope = scope
        number = self._written.read_value()
        self.row_index = tf.reshape(number % self._options.capacity, [1])
        if self._options.switchable:
            period = self._period.read_value()
            self._measuring = tf.equal(self._seen % period, 0)
        if self._options.comparable or self._largest_every:
            compares = self._options.comparable
            mask = self._review_mask.read_value() if compares else self._usual_mask
            now = tf.equal(tf.bitwise.bitwise_and(number, mask), 0)
            self.review = Review(now, number, self._largest_every, compares)

    def when_measuring(self, write: Callable[[], tf.Tensor | None]) -> tf.Tensor | None:
        """Call `write` in the measured train steps, in the graph.

        Returns:
            A tensor that depends on the result of `write`; None if `write` returns None and every
            step is measured.
        """
        return when(self._measuring, write) if self._options.switchable else write()

    def when_histograms(self, write: Callable[[tf.Tensor], None]) -> None:
        """Call `write` with the number of the train step if histograms are due, in the graph."""

        due = tf.equal(self._seen % self._options.histograms, 0)
        when(due, lambda: write(self._seen.read_value()))

    def end_step(self) -> None:
        """Count the step, and store its number if not every step has a row, in the graph."""
        self._always_notes &= self._has_noted
        if self._noted_loss is not None:
            self._write_loss(self._noted_loss)
            self._noted_loss = None
        stamps = self._stamps
        if stamps is not None:

            def stamp() -> None:
                stamps.write(self.row_index, self._seen.read_value())
                self._written.assign_add(1)

            self.when_measuring(stamp)
        self._seen.assign_add(1)

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` steps."""
        self._period.assign(period)

    def measure_twice(self, twice: bool) -> None:
        """Set whether steps are measured a second time."""
        self._review_mask.assign(0 if twice else self._usual_mask)

    @property
    def _usual_mask(self) -> int:
        return self._largest_every - 1 if self._largest_every else _NEVER

    def wait(self) -> int:
        """Wait for running train steps, and return the number of completed steps."""
        return int(self._seen.numpy())

    def rows(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the rows written since the last call.

        Returns:
            Row indices and step numbers (counted from the first step of this log), oldest first,
            and the number of rows that were overwritten before they were read.
        """
        end = int(self._written.numpy())
        begin = max(self._read, end - self._options.capacity)
        lost, self._read = begin - self._read, end
        rows = np.arange(begin, end)
        row_indices = rows % self._options.capacity
        return (
            row_indices,
            rows if self._stamps is None else self._stamps.read(row_indices)[:, 0],
            lost,
        )

    def clear(self) -> None:
        """Clear all ring buffers."""
        for optimizer_log in self.optimizer_logs:
            for ring in optimizer_log.rings.values():
                ring.clear()
            if optimizer_log.histograms is not None:
                optimizer_log.histograms.clear()
        if self.loss is not None:
            self.loss.clear()

    def _ring(self, width: int, dtype: tf.DType, empty: float | np.ndarray) -> Ring:
        return Ring(self._options.capacity, width, dtype, empty=empty, device=self._device)


def recorded_gradients(grads_and_vars: list[GradAndVar], optimizer_log: OptimizerLog) -> list[Any]:
    """Return the gradients of the variables that have a column."""
    return [
        gradient for gradient, variable in grads_and_vars if id(variable) in optimizer_log.columns
    ]


def scatter_to_columns(
    measured: tf.Tensor, grads_and_vars: list[GradAndVar], optimizer_log: OptimizerLog
) -> tf.Tensor:
    """Scatter statistics of the recorded_gradients gradients, [statistics, gradients], to the columns."""
    found = [
        optimizer_log.columns[id(v)] for _, v in grads_and_vars if id(v) in optimizer_log.columns
    ]
    if found == list(range(len(optimizer_log.names))):
        return measured
    missing = tf.fill([measured.shape[0], 1], tf.cast(MISSING, measured.dtype))
    sources = [
        found.index(c) if c in found else len(found) for c in range(len(optimizer_log.names))
    ]
    return tf.gather(tf.concat([measured, missing], axis=1), sources, axis=1)
