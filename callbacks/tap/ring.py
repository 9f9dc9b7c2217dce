"""Ring buffer that the train step writes and the host reads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

# Norms and counts are never negative, so that a negative value marks an empty cell.
MISSING = -1.0


def make_variable(
    value: np.ndarray | Callable[[], tf.Tensor],
    device: str | None,
    shape: tf.TensorShape | None = None,
) -> tf.Variable:
    """Create a plain variable on the device (None for TensorFlow's choice).

    The shape is that of the initial value, or `shape`, which may be unknown.

    The variable is created in a separate thread, whose TensorFlow context is empty. The graph under
    trace, and a surrounding strategy, device or name scope, do not affect the variable.
    """

    def make() -> tf.Variable:
        with tf.device(device):
            return tf.Variable(value, trainable=False, shape=shape, name="gradkeeper")

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


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

    def write(self, slot: tf.Tensor, row: tf.Tensor) -> None:
        """Write a row, in the graph.

        Args:
            slot: the row index, [1].
            row: `width` values, in any shape.

        Raises:
            ValueError: if `row` does not have `width` values. TensorFlow may not detect this.
        """
        width = self._rows.shape[1]
        if row.shape.num_elements() != width:
            raise ValueError(f"A row must have {width} values. Received: row.shape={row.shape}")
        row = tf.reshape(tf.cast(row, self._rows.dtype), [1, width])
        self._rows.scatter_update(tf.IndexedSlices(row, slot))

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Return the rows at these indices, [slots, width]."""
        return self._rows.numpy()[slots]

    def clear(self) -> None:
        """Mark every cell as empty."""
        self._rows.assign(self._empty)
