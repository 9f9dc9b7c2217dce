"""Log of the measured train steps of one replica, with a part for each optimizer call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import GraphFunction, TraceScope, make_variable, when
from gradkeeper.callbacks.instrument.step_context import GradAndVar, StepContext, StepLoss
from gradkeeper.callbacks.recording.rows import LARGEST_EVERY, MISSING, Options, empty_row
from gradkeeper.callbacks.recording.step_log import Ring, StepLog
from gradkeeper.callbacks.statistics.gradients import is_branchless
from gradkeeper.callbacks.statistics.groups import Review

# A mask with more bits than the number of any train step.
_NEVER = 2**62 - 1


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


@dataclass
class OptimizerLog:
    """Ring buffers for the statistics of an optimizer call, one row per train step.

    Attributes:
        log: the log of the replica.
        optimizer: the optimizer that was called.
        round: number of earlier calls in the same train step for some of the variables.
        names: the names of the recorded variables, one per column.
        variables: the recorded variables.
        keys: `id` of each variable of the call, recorded or not.
        clip_limit: the limit of the optimizer's own clipping; None without clipping.
        lacks_loss_scaling: whether the optimizer divides by a loss scale that the loss was not
            multiplied by.
        applies_all: whether the gradients before clipping are applied unchanged.
        rings: ring buffers by statistic.
        memories: variables that hold values from step to step, by kind and `id` of a variable.
    """

    log: StepLog
    optimizer: keras.optimizers.Optimizer
    round: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    keys: tuple[int, ...]
    clip_limit: float | None
    lacks_loss_scaling: bool = False
    applies_all: bool = False
    rings: dict[str, Ring] = field(default_factory=dict)
    memories: dict[tuple[str, int], tf.Variable] = field(default_factory=dict)

    @cached_property
    def columns(self) -> dict[int, int]:
        """Return the column of each recorded variable, by `id`."""
        return {id(variable): column for column, variable in enumerate(self.variables)}

    @cached_property
    def dtype(self) -> tf.DType:
        """Return float64 if a variable is wider than 32 bits, so that no norm overflows."""
        wide = any(tf.as_dtype(v.dtype).size > 4 for v in self.variables)
        return tf.float64 if wide else tf.float32

    @property
    def measured(self) -> Ring:
        """Return the ring buffer for the rows of measured steps; see `row_of`."""
        empty = empty_row(len(self.names))
        return self._ring("measured", len(empty), self.dtype, empty)

    def per_variable(self, name: str) -> Ring:
        """Return the ring buffer for a statistic of each variable."""
        return self._ring(name, len(self.names), self.dtype, MISSING)

    def per_step(self, name: str) -> Ring:
        """Return the ring buffer for a statistic of the step."""
        return self._ring(name, 1, tf.float64, np.nan)

    def histograms(self, bins: int) -> Ring:
        """Return the ring buffer for the latest histograms: the step number, then the counts."""
        return self._ring("histograms", 1 + bins * len(self.names), tf.float64, MISSING, capacity=1)

    def _ring(
        self, name: str, width: int, dtype: tf.DType, empty: Any, capacity: int | None = None
    ) -> Ring:
        if name not in self.rings:
            self.rings[name] = self.log.add_ring(width, dtype, empty=empty, capacity=capacity)
        return self.rings[name]

    def memory(self, kind: str, variable: Any, dtype: Any) -> tf.Variable:
        """Return the memory of this kind for a variable, NaN where nothing is stored."""
        key = kind, id(variable)
        if key not in self.memories:
            unknown = np.full(variable.shape, np.nan, tf.as_dtype(dtype).as_numpy_dtype)
            self.memories[key] = make_variable(unknown, self.log.device)
        return self.memories[key]

    def previous_gradient(self, gradient: tf.Tensor, variable: Any) -> tf.Variable | None:
        """Return the memory for the previous gradient of a variable.

        None if the gradient is complex or does not have the shape of its variable.
        """
        is_complex = tf.as_dtype(variable.dtype).is_complex
        if is_complex or tuple(gradient.shape) != tuple(variable.shape):
            return None
        return self.memory("gradient", variable, gradient.dtype)

    def forget(self) -> None:
        """Mark everything in the memories as unknown."""
        for each in self.memories.values():
            each.assign(tf.fill(each.shape, tf.constant(np.nan, each.dtype)))

    def recorded(self, grads_and_vars: Sequence[GradAndVar]) -> list[Any]:
        """Return the gradients of the variables that have a column."""
        return [gradient for gradient, variable in grads_and_vars if id(variable) in self.columns]

    def scatter_to_columns(
        self, measured: tf.Tensor, grads_and_vars: Sequence[GradAndVar]
    ) -> tf.Tensor:
        """Arrange statistics of recorded gradients, [statistics, gradients], by column."""
        found = [self.columns[id(v)] for _, v in grads_and_vars if id(v) in self.columns]
        width = len(self.names)
        if found == list(range(width)):
            return measured
        missing = tf.fill([measured.shape[0], 1], tf.cast(MISSING, measured.dtype))
        sources = [found.index(c) if c in found else len(found) for c in range(width)]
        return tf.gather(tf.concat([measured, missing], axis=1), sources, axis=1)


class ReplicaLog(StepLog):
    """Log of the measured train steps of one replica.

    Args:
        options: the recording options.
        context: the train step of the replica.
    """

    def __init__(self, options: Options, context: StepContext) -> None:
        device, counters = context.replica.device, context.device
        super().__init__(
            options.capacity, device, counters=counters, every_step=not options.switchable
        )
        self._options = options
        # The number of completed steps: that of the rows if every step has one.
        self._steps = make_variable(np.array(0), counters) if options.switchable else self._rows
        self._every = options.every
        self._period = make_variable(np.array(options.every), counters)
        self._largest_every = 0 if options.largest or is_branchless() else LARGEST_EVERY
        self._usual_mask = self._largest_every - 1 if self._largest_every else _NEVER
        # A step is reviewed if its number has none of these bits. A remainder by a variable is
        # equivalent, but makes the 15 ms step of a GRU 0.1 to 0.3 ms longer.
        self._review_mask = make_variable(np.array(self._usual_mask), counters)
        self.optimizer_logs: list[OptimizerLog] = []
        self.row_index: tf.Tensor  # [1]
        self.review: Review | None = None
        self._is_measured: tf.Tensor
        self._scope: TraceScope | None = None
        self.has_loss = True
        self._loss_in_row: tf.Tensor | None = None
        self.loss: Ring | None = None  # for steps without a row for the loss

    def optimizer_log(
        self, optimizer: Any, round: int, variables: Sequence[Any]
    ) -> OptimizerLog | None:
        """Return the part of this optimizer call; None if there is none yet."""
        keys = set(map(id, variables))
        alike = (t for t in self.optimizer_logs if t.optimizer is optimizer and t.round == round)
        return next((each for each in alike if keys <= set(each.keys)), None)

    def begin_step(self) -> None:
        """Begin a train step, in the graph."""
        self._scope, self._loss_in_row = None, None
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
        number = self._rows.read_value()
        self.row_index = tf.reshape(number % self.capacity, [1])
        if self._options.switchable:
            self._is_measured = tf.equal(self._steps % self._period.read_value(), 0)
        compares = self._options.compared_with == "twice"
        if compares or self._largest_every:
            mask = self._review_mask.read_value() if compares else self._usual_mask
            now = tf.equal(tf.bitwise.bitwise_and(number, mask), 0)
            self.review = Review(now, number, self._largest_every, compares)

    def when_measuring(self, write: Callable[[], tf.Tensor | None]) -> tf.Tensor | None:
        """Call `write` in the measured train steps, in the graph.

        Returns:
            A tensor that depends on the result of `write`; None if `write` returns None and every
            step is measured.
        """
        return when(self._is_measured, write) if self._options.switchable else write()

    def before_measuring(self, write: Callable[[], object]) -> None:
        """Call `write` in the train steps whose next step is measured, in the graph."""
        if self._options.switchable:
            when(tf.equal((self._steps + 1) % self._period.read_value(), 0), write)
        else:
            write()

    def values_of(self, kind: str, part: "OptimizerLog", variables: Sequence[Any]) -> list[Any]:
        """Return the current values of variables, to be read in this step if it is measured.

        The values are tensors, or variables of `part` in which measured steps store them. If a step
        that is not measured read its variables, each later assignment would copy.
        """
        if not self._options.switchable:
            return [tf.convert_to_tensor(each) for each in variables]
        stored = [part.memory(kind, each, each.dtype) for each in variables]

        def store() -> None:
            for memory, variable in zip(stored, variables, strict=True):
                memory.assign(tf.convert_to_tensor(variable))

        self.when_measuring(store)
        return stored

    def measured(self, function: GraphFunction) -> tf.Tensor:
        """Return the result of a function in the measured train steps, else zeros, in the graph.

        The function is called again in the steps that are measured twice.
        """
        result = function.where(self._is_measured) if self._options.switchable else function()
        if self._options.compared_with == "twice":
            is_repeated = tf.equal(self._review_mask.read_value(), 0)
            with tf.control_dependencies([function.where(is_repeated)]):
                result = tf.identity(result)
        return result

    def when_histograms(self, write: Callable[[tf.Tensor], None]) -> None:
        """Call `write` with the number of the train step if histograms are due, in the graph."""
        due = tf.equal(self._steps % self._options.histograms, 0)
        when(due, lambda: write(self._steps.read_value()))

    def loss_for_row(self, loss: StepLoss, dtype: tf.DType) -> tf.Tensor | None:
        """Return the loss, which the caller must then record in the row.

        Return None if the loss is unknown, if this graph cannot read it, or if `dtype` is too
        narrow for it.
        """
        tensor = loss.tensor
        if tensor is None or tensor.dtype.size > dtype.size:
            return None
        self._loss_in_row = tensor
        return tensor

    def end_step(self, loss: StepLoss) -> None:
        """Count the step, and store its number if not every step has a row, in the graph."""
        self.enter_scope()
        self.has_loss &= loss.is_known
        # The last loss of the step counts.
        if loss.may_be_known and (loss.latest is None or loss.latest is not self._loss_in_row):
            if self.loss is None:
                self.loss = self.add_ring(1, tf.float64, empty=np.nan)
            self.loss.write(self.row_index, loss.value)
        self.when_measuring(lambda: self.commit(self.row_index, self._steps))
        if self._options.switchable:
            self.count_step()

    def count_step(self) -> None:
        """Count a train step, which may have no row, in the graph."""
        self._steps.assign_add(1)

    def wait(self) -> int:
        """Wait for running train steps, and return the number of completed steps."""
        return int(self._steps.numpy())

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` steps."""
        if period != self._every:
            self._every = period
            self._period.assign(period)
            self.forget_previous()  # it may not be that of the last step

    def forget_previous(self) -> None:
        """Mark the gradients of the previous step as unknown."""
        for optimizer_log in self.optimizer_logs:
            optimizer_log.forget()

    def measure_twice(self, twice: bool) -> None:
        """Set whether steps are measured a second time."""
        self._review_mask.assign(0 if twice else self._usual_mask)
