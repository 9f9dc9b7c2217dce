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
from gradkeeper.callbacks.tap.site import Site

# More train steps than there will be.
_NEVER = 2**62


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
        self._review_every = make_variable(np.array(self._usual_review), counters)
        self.tables: list[Table] = []
        self.slot: tf.Tensor  # [1]
        self._measuring: tf.Tensor
        self._site: Site | None = None
        self.review: Review | None = None
        self._read = 0

    def per_variable(self, table: Table, name: str, statistics: int = 1) -> Ring:
        """The table's ring for one or more statistics of each variable."""
        if name not in table.rings:
            width = statistics * len(table.names)
            table.rings[name] = self._ring(width, table.dtype, MISSING)
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

    @cached_property
    def loss(self) -> Ring:
        """The ring for the step's loss."""
        return self._ring(1, tf.float64, np.nan)

    def table(self, optimizer: Any, turn: int, variables: Sequence[Any]) -> Table | None:
        """The table for such a call; None if there was none before."""
        keys = set(map(id, variables))
        alike = (t for t in self.tables if t.optimizer is optimizer and t.turn == turn)
        return next((each for each in alike if keys <= set(each.keys)), None)

    def begin_step(self) -> None:
        """A train step begins, in the graph."""
        self._site = None
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
            period = self._review_every if compares else self._usual_review
            now = tf.equal(number % period, 0)
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
        self._review_every.assign(1 if twice else self._usual_review)

    @property
    def _usual_review(self) -> int:
        return self._largest_every or _NEVER

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
        self.loss.clear()

    def _ring(self, width: int, dtype: tf.DType, empty: float) -> Ring:
        return Ring(self._options.capacity, width, dtype, empty=empty, device=self._device)
