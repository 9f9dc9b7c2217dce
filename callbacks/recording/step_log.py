"""Log of train steps: ring buffers in the graph, and their reader on the host."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import make_variable
from gradkeeper.callbacks.recording.rows import MISSING, Rows


class Ring:
    """Ring buffer in a variable of shape [capacity, width].

    Args:
        capacity: number of rows.
        width: number of values in a row.
        dtype: a TensorFlow dtype.
        empty: value of an empty cell, or an empty row, [width].
        device: device of the variable; None for TensorFlow's choice.
    """

    def __init__(
        self,
        capacity: int,
        width: int,
        dtype: tf.DType,
        *,
        empty: float | np.ndarray,
        device: str | None,
    ) -> None:
        self._empty = np.full((capacity, width), empty, dtype.as_numpy_dtype)
        self._rows = make_variable(self._empty, device)

    def write(self, row_index: tf.Tensor, row: tf.Tensor) -> None:
        """Write a row, in the graph.

        Args:
            row_index: the row index, [1].
            row: `width` values, in any shape.

        Raises:
            ValueError: if `row` does not have `width` values. TensorFlow may not detect this.
        """
        width = self._rows.shape[1]
        if row.shape.num_elements() != width:
            raise ValueError(f"A row must have {width} values. Received: row.shape={row.shape}")
        row = tf.reshape(tf.cast(row, self._rows.dtype), [1, width])
        self._rows.scatter_update(tf.IndexedSlices(row, row_index))

    def read(self, row_indices: np.ndarray) -> np.ndarray:
        """Return the rows at these indices, [rows, width]."""
        return self._rows.numpy()[row_indices]

    def clear(self) -> None:
        """Mark every cell as empty."""
        self._rows.assign(self._empty)


class StepLog:
    """Log in which an observer writes the train steps of one replica, one row per logged step.

    Each observer has its own log and counts its own steps: observers that are attached to the same
    model need not see the same steps.

    Args:
        capacity: number of rows that the ring buffers hold.
        device: the device of the ring buffers; None for TensorFlow's choice.
        counters: the device of the counters.
        every_step: whether the row number is the number of the step. Otherwise, `commit` stores the
            number of the step.

    Attributes:
        capacity: number of rows that the ring buffers hold.
        device: the device of the ring buffers.
    """

    def __init__(
        self, capacity: int, device: str | None, *, counters: str | None, every_step: bool
    ) -> None:
        self.capacity = capacity
        self.device = device
        self._rows = make_variable(np.array(0), counters)
        self._numbers: Ring | None = None
        if not every_step:
            self._numbers = Ring(capacity, 1, tf.int64, empty=MISSING, device=counters)
        self._rings: list[Ring] = []

    def add_ring(
        self, width: int, dtype: tf.DType, *, empty: float | np.ndarray, capacity: int | None = None
    ) -> Ring:
        """Return a new ring buffer; see `Ring`."""
        ring = Ring(capacity or self.capacity, width, dtype, empty=empty, device=self.device)
        self._rings.append(ring)
        return ring

    def next_row(self) -> tf.Tensor:
        """Return the index of the next row, [1], in the graph."""
        return tf.reshape(self._rows.read_value() % self.capacity, [1])

    def commit(self, row_index: tf.Tensor, step: tf.Tensor | tf.Variable) -> None:
        """Count the row, which belongs to this step, in the graph."""
        if self._numbers is not None:
            self._numbers.write(row_index, tf.convert_to_tensor(step))
        self._rows.assign_add(1)

    @property
    def rows(self) -> int:
        """Return the number of rows written so far. Blocks until running steps have finished."""
        return int(self._rows.numpy())

    def numbers_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the steps of rows that the ring buffers still hold."""
        return rows if self._numbers is None else self._numbers.read(rows % self.capacity)[:, 0]

    def clear(self) -> None:
        """Clear all ring buffers."""
        for ring in self._rings:
            ring.clear()


class RowReader:
    """Reader of the logs of all replicas."""

    def __init__(self) -> None:
        self._read = 0

    def unread(self, logs: Sequence[StepLog]) -> int:
        """Return the number of unread rows. Blocks until running steps have finished."""
        # After an exception, one replica may be a step ahead.
        return min((log.rows for log in logs), default=0) - self._read

    def read(self, logs: Sequence[StepLog]) -> Rows:
        """Return the rows since the last call.

        Args:
            logs: the log of each replica; the first log numbers the steps.
        """
        count = self.unread(logs)
        end = self._read + count
        begin = max(self._read, end - logs[0].capacity) if logs else end
        lost, self._read = begin - self._read, end
        rows = np.arange(begin, end)
        if not len(rows):
            return Rows(rows, rows, lost)
        return Rows(rows % logs[0].capacity, logs[0].numbers_of(rows), lost)
