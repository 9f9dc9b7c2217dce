"""A variable that the train step writes rows into, and the host reads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

# Norms and counts are never negative: a cell that nothing was written to stays recognisable.
MISSING = -1.0


def make_variable(
    value: np.ndarray | Callable[[], tf.Tensor],
    device: str | None,
    shape: tf.TensorShape | None = None,
) -> tf.Variable:
    """A plain variable on the device (None: where TensorFlow puts it).

    Its shape is that of the first value, or the one given, which may be unknown.

    Made in a thread of its own, whose TensorFlow context is empty: neither the graph under
    trace nor a strategy, a device or a name scope around it has a say in the variable.
    """

    def make() -> tf.Variable:
        with tf.device(device):
            return tf.Variable(value, trainable=False, shape=shape, name="gradkeeper")

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


class Ring:
    """A variable of shape [capacity, width].

    Args:
        capacity: rows that it holds.
        width: numbers in a row.
        dtype: a TensorFlow dtype.
        empty: what a cell holds that nothing was written to, or a row, [width].
        device: where the variable lies; None for TensorFlow's choice.
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
        """Writes a row, in the graph.

        Args:
            slot: its place, [1].
            row: as many numbers as a row has, in any shape.

        Raises:
            ValueError: if there are more or fewer; TensorFlow itself might not notice.
        """
        width = self._rows.shape[1]
        if row.shape.num_elements() != width:
            raise ValueError(f"A row of this ring has {width} numbers. Received: {row.shape}")
        row = tf.reshape(tf.cast(row, self._rows.dtype), [1, width])
        self._rows.scatter_update(tf.IndexedSlices(row, slot))

    def read(self, slots: np.ndarray) -> np.ndarray:
        """The rows at these slots, [slots, width]."""
        return self._rows.numpy()[slots]

    def clear(self) -> None:
        """Marks every cell as not written to."""
        self._rows.assign(self._empty)
