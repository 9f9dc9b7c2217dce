"""What one replica writes while it trains: which steps, and a table for each optimizer."""

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

# The name of a table's ring for what every measured step tells.
MEASURED_ROW = "measured"

# A mask of more bits than the number of a train step has.
_NEVER = 2**62 - 1


@dataclass
class Table:
    """Where the statistics of some variables are written, a row per train step.

    Attributes:
        optimizer: the optimizer that was called for the variables.
        turn: how many calls in the same train step came before for some of them.
        names: the recorded variables' names, one per column.
        variables: the recorded variables.
        keys: `id` of each variable of the call, recorded or not.
        clip_limit: the limit of the optimizer's own clipping; None without.
        misses_scale: whether the optimizer divides by a loss scale that the loss was not
            multiplied by.
        applies_all: whether all that comes before the clipping is applied as it is.
        rings: rings by statistic.
        histograms: a ring of one row, the latest histograms; None if none are taken.
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
        """The column of each recorded variable, by `id`."""
        return {id(variable): column for column, variable in enumerate(self.variables)}

    @cached_property
    def dtype(self) -> tf.DType:
        """float64 if a variable is, so that no norm overflows; float32 otherwise."""
        wide = any(tf.as_dtype(v.dtype).size > 4 for v in self.variables)
        return tf.float64 if wide else tf.float32


class Lane:
    """The counters and tables of one replica.

    Args:
        options: what is recorded.
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
        # Steps are looked at again whose number has none of these bits. A remainder by a
        # variable would tell the same, and made a GRU's step of 15 ms 0.1 to 0.3 ms longer.
        self._review_mask = make_variable(np.array(self._usual_mask), counters)
        self.tables: list[Table] = []
        self.slot: tf.Tensor  # [1]
        self._measuring: tf.Tensor
        # Where this code runs by now, and where the step began.
        self._site: Site | None = None
        self._begun: Site | None = None
        self._noted_loss: tf.Tensor | None = None
        self._has_noted = False
        self._always_notes = True
        self.loss: Ring | None = None  # of steps that wrote it by itself
        self.review: Review | None = None
        self._read = 0

    def measured(self, table: Table) -> Ring:
        """The table's ring for what every measured step tells; see `row_of`."""
        if MEASURED_ROW not in table.rings:
            empty = empty_row(len(table.names))
            table.rings[MEASURED_ROW] = self._ring(len(empty), table.dtype, empty)
        return table.rings[MEASURED_ROW]

    def per_variable(self, table: Table, name: str) -> Ring:
        """The table's ring for a statistic of each variable."""
        if name not in table.rings:
            table.rings[name] = self._ring(len(table.names), table.dtype, MISSING)
        return table.rings[name]

    def per_step(self, table: Table, name: str) -> Ring:
        """The table's ring for a statistic of the step."""
        if name not in table.rings:
            table.rings[name] = self._ring(1, tf.float64, np.nan)
        return table.rings[name]

    def histograms(self, table: Table, bins: int) -> Ring:
        """The table's ring for histograms: the step that they are of, then the counts."""
        if table.histograms is None:
            width = 1 + bins * len(table.names)
            table.histograms = Ring(1, width, tf.float64, empty=MISSING, device=self._device)
        return table.histograms

    def note_loss(self, value: tf.Tensor) -> None:
        """Has the loss written with what is measured of the step, or else at its end.

        In a function of the train step's own it is written at once: nobody outside could.
        """
        self._has_noted = True
        if self._begun == Site.here():
            self._noted_loss = value
        else:
            self.come_here()
            self._write_loss(value)

    def noted_loss(self, dtype: tf.DType) -> tf.Tensor | None:
        """The loss that is still to be written, to be written by the caller.

        None if there is none that is known here and can be held in this dtype.
        """
        loss = self._noted_loss
        if loss is None or self._begun != Site.here() or loss.dtype.size > dtype.size:
            return None
        self._noted_loss = None
        return loss

    @property
    def has_loss(self) -> bool:
        """Whether every step that was traced or run so far had a loss."""
        return self._has_noted and self._always_notes

    def _write_loss(self, value: tf.Tensor) -> None:
        if self.loss is None:
            self.loss = self._ring(1, tf.float64, np.nan)
        self.loss.write(self.slot, value)

    def table(self, optimizer: Any, turn: int, variables: Sequence[Any]) -> Table | None:
        """The table for such a call; None if there was none before."""
        keys = set(map(id, variables))
        alike = (t for t in self.tables if t.optimizer is optimizer and t.turn == turn)
        return next((each for each in alike if keys <= set(each.keys)), None)

    def begin_step(self) -> None:
        """A train step begins, in the graph."""
        self._site, self._begun, self._noted_loss = None, Site.here(), None
        self._has_noted = False
        self.come_here()

    def come_here(self) -> None:
        """Has the row that this step writes, and how it is measured, at hand in this graph.

        A train step may have functions of its own. What they would take from the graph around
        them is that of the step in which they were traced.
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
        """Has `write` run in the train steps that are measured, in the graph.

        Returns:
            What is there once it has; None if it returns none, and always runs.
        """
        return when(self._measuring, write) if self._options.switchable else write()

    def when_histograms(self, write: Callable[[tf.Tensor], None]) -> None:
        """Has `write` run with the train step's number where histograms are due, in the graph."""

        due = tf.equal(self._seen % self._options.histograms, 0)
        when(due, lambda: write(self._seen.read_value()))

    def end_step(self) -> None:
        """Counts the step, and stamps its row where not every step has one, in the graph."""
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
        """Measures one of so many steps from now on."""
        self._period.assign(period)

    def measure_twice(self, twice: bool) -> None:
        """Whether steps are measured a second time from now on."""
        self._review_mask.assign(0 if twice else self._usual_mask)

    @property
    def _usual_mask(self) -> int:
        return self._largest_every - 1 if self._largest_every else _NEVER

    def wait(self) -> int:
        """Train steps that have begun and ended; waits for those under way."""
        return int(self._seen.numpy())

    def rows(self) -> tuple[np.ndarray, np.ndarray, int]:
        """What was written since the last call.

        Returns:
            Slots and train steps (counted from this lane's first) of the rows, oldest first,
            and how many rows were lost because the ring had gone round.
        """
        end = int(self._written.numpy())
        begin = max(self._read, end - self._options.capacity)
        lost, self._read = begin - self._read, end
        rows = np.arange(begin, end)
        slots = rows % self._options.capacity
        return slots, rows if self._stamps is None else self._stamps.read(slots)[:, 0], lost

    def clear(self) -> None:
        """Forgets the rows that were read."""
        for table in self.tables:
            for ring in table.rings.values():
                ring.clear()
            if table.histograms is not None:
                table.histograms.clear()
        if self.loss is not None:
            self.loss.clear()

    def _ring(self, width: int, dtype: tf.DType, empty: float | np.ndarray) -> Ring:
        return Ring(self._options.capacity, width, dtype, empty=empty, device=self._device)
