"""Ring buffer that the train step writes and the host reads."""

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import make_variable

# Norms and counts are never negative, so that a negative value marks an empty cell.
MISSING = -1.0


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
