"""Tasks whose examples fit into memory."""

from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.training._checks import integer
from gradkeeper.training.tasks.epochs import endless
from gradkeeper.training.tasks.order import random_order
from gradkeeper.training.tasks.task import Task


class InMemoryTask(Task):
    """A task made of arrays.

    Training: in each epoch all examples come once, in an order drawn for that epoch.
    Evaluation: all examples, in their order.

    Args:
        train: Arrays [examples, ...] for training, as they are stored: inputs, targets, and
            weights where there are any.
        evaluation: The same for evaluation.
        options: See `Task`.
        data_dir: See `Task`.
        seed: Seed of the training batches.
    """

    def __init__(
        self,
        train: tuple[np.ndarray, ...],
        evaluation: tuple[np.ndarray, ...],
        *,
        options: dict[str, Any],
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(options=options, data_dir=data_dir, seed=seed)
        self._train, self._evaluation = train, evaluation

    def to_model(self, *stored: tf.Tensor) -> tuple[Any, ...]:
        """A stored batch as a model takes it."""
        return stored

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """See `Task._batches_from`."""
        size = integer("batch_size", batch_size)
        rows = tf.data.Dataset.counter(epoch).flat_map(self._order)
        batches = self._gathered(self._train, rows.batch(size, drop_remainder=True))
        return endless(batches).prefetch(tf.data.AUTOTUNE)

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        """See `Task.evaluation_dataset`."""
        return self._once(self._evaluation, batch_size)

    def steps_per_epoch(self, batch_size: int) -> int:
        """An epoch is one pass over the training examples."""
        return max(1, len(self._train[0]) // integer("batch_size", batch_size))

    def _once(self, arrays: tuple[np.ndarray, ...], batch_size: int) -> tf.data.Dataset:
        rows = tf.data.Dataset.range(len(arrays[0]))
        batches = rows.batch(integer("batch_size", batch_size))
        return self._gathered(arrays, batches).prefetch(tf.data.AUTOTUNE)

    def _order(self, epoch: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        order = random_order(len(self._train[0]), seed)
        return tf.data.Dataset.from_tensor_slices(order)

    def _gathered(self, arrays: tuple[np.ndarray, ...], rows: tf.data.Dataset) -> tf.data.Dataset:
        # Outside of the graph of a dataset, on the CPU, where tf.data works.
        with tf.init_scope(), tf.device("CPU"):
            stored = [tf.constant(array) for array in arrays]

        def gather(rows: tf.Tensor) -> tuple[Any, ...]:
            return self.to_model(*(tf.gather(array, rows) for array in stored))

        return rows.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
