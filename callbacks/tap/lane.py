"""Log of the train steps of one replica, with ring buffers for each optimizer call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.group_statistics import Review
from gradkeeper.callbacks.tap.measure import is_branchless
from gradkeeper.callbacks.tap.options import LARGEST_EVERY, Options
from gradkeeper.callbacks.tap.ring import MISSING, Ring, make_variable
from gradkeeper.callbacks.tap.row import empty_row
from gradkeeper.callbacks.tap.site import Site

# Name of the ring buffer for the statistics of every measured step.
MEASURED_ROW = "measured"

# A mask with more bits than the number of any train step.
_NEVER = 2**62 - 1


@dataclass
class Table:
    """Ring buffers for the statistics of an optimizer call, one row per train step.

    Attributes:
        optimizer: the optimizer that was called.
        turn: number of earlier calls in the same train step for some of the variables.
        names: the names of the recorded variables, one per column.
        variables: the recorded variables.
        keys: `id` of each variable of the call, recorded or not.
        clip_limit: the limit of the optimizer's own clipping; None without clipping.
        misses_scale: whether the optimizer divides by a loss scale that the loss was not multiplied
            by.
        applies_all: whether the gradients before clipping are applied unchanged.
        rings: ring buffers by statistic.
        histograms: ring buffer with one row for the latest histograms; None without histograms.
    """

    optimizer: keras.optimizers.Optimizer
    turn: int
    names: tuple[str, ...]
    variables: tuple[Any, ...]
    keys: tuple[int, ...]
    clip_limit: float | None
    misses_scale: bool = False
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


class Lane:
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
        self.tables: list[Table] = []
        self.slot: tf.Tensor  # [1]
        self._measuring: tf.Tensor
        # The trace scope of the current code, and the one in which the step began.
        self._site: Site | None = None
        self._begun: Site | None = None
        self._noted_loss: tf.Tensor | None = None
        self._has_noted = False
        self._always_notes = True
        self.loss: Ring | None = None  # for steps without a row for the loss
        self.review: Review | None = None
        self._read = 0

    def measured(self, table: Table) -> Ring:
        """Return the table's ring buffer for the rows of measured steps; see `row_of`."""
        if MEASURED_ROW not in table.rings:
            empty = empty_row(len(table.names))
            table.rings[MEASURED_ROW] = self._ring(len(empty), table.dtype, empty)
        return table.rings[MEASURED_ROW]

    def per_variable(self, table: Table, name: str) -> Ring:
        """Return the table's ring buffer for a statistic of each variable."""
        if name not in table.rings:
            table.rings[name] = self._ring(len(table.names), table.dtype, MISSING)
        return table.rings[name]

    def per_step(self, table: Table, name: str) -> Ring:
        """Return the table's ring buffer for a statistic of the step."""
        if name not in table.rings:
            table.rings[name] = self._ring(1, tf.float64, np.nan)
        return table.rings[name]

    def histograms(self, table: Table, bins: int) -> Ring:
        """Return the table's ring buffer for histograms: first the step number, then the counts."""
        if table.histograms is None:
            width = 1 + bins * len(table.names)
            table.histograms = Ring(1, width, tf.float64, empty=MISSING, device=self._device)
        return table.histograms

    def note_loss(self, value: tf.Tensor) -> None:
        """Record the loss with the step's row, or at the end of the step.

        Inside a nested `tf.function`, write the loss immediately, because outer graphs cannot read
        it.
        """
        self._has_noted = True
        if self._begun == Site.here():
            self._noted_loss = value
        else:
            self.come_here()
            self._write_loss(value)

    def noted_loss(self, dtype: tf.DType) -> tf.Tensor | None:
        """Return the pending loss, which the caller must then record.

        Return None if no loss is pending, if this graph cannot read the loss, or if `dtype` is too
        narrow for it.
        """
        loss = self._noted_loss
        if loss is None or self._begun != Site.here() or loss.dtype.size > dtype.size:
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
        self.loss.write(self.slot, value)

    def table(self, optimizer: Any, turn: int, variables: Sequence[Any]) -> Table | None:
        """Return the table of this optimizer call; None if there is none yet."""
        keys = set(map(id, variables))
        alike = (t for t in self.tables if t.optimizer is optimizer and t.turn == turn)
        return next((each for each in alike if keys <= set(each.keys)), None)

    def begin_step(self) -> None:
        """Begin a train step, in the graph."""
        self._site, self._begun, self._noted_loss = None, Site.here(), None
        self._has_noted = False
        self.come_here()

    def come_here(self) -> None:
        """Read the row index and the sampling flags into the current FuncGraph.

        A train step may call a `tf.function`. Tensors that the function captures from the outer
        graph have the values of the step in which the function was traced.
        """
        site = Site.here()
        if self._site == site:
            return
        self._site = site
        number = self._written.read_value()
        self.slot = tf.reshape(number % self._options.capacity, [1])
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
                stamps.write(self.slot, self._seen.read_value())
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
        slots = rows % self._options.capacity
        return slots, rows if self._stamps is None else self._stamps.read(slots)[:, 0], lost

    def clear(self) -> None:
        """Clear all ring buffers."""
        for table in self.tables:
            for ring in table.rings.values():
                ring.clear()
            if table.histograms is not None:
                table.histograms.clear()
        if self.loss is not None:
            self.loss.clear()

    def _ring(self, width: int, dtype: tf.DType, empty: float | np.ndarray) -> Ring:
        return Ring(self._options.capacity, width, dtype, empty=empty, device=self._device)
