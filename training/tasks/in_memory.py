"""Tasks whose examples fit into memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.task import Task, endless


def random_order(count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a random order of `count` examples, int32 [count]; equal seeds [2], equal orders."""
    return tf.argsort(tf.random.stateless_uniform(tf.reshape(count, [1]), seed))


def random_split(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw a share of `count` examples for evaluation, the same ones at every call.

    Returns:
        The numbers of the training and of the evaluation examples, at least one of each.
    """
    order = np.random.RandomState(0).permutation(count)
    drawn = max(1, min(count - 1, round(count * share)))
    return order[drawn:], order[:drawn]


class InMemoryTask(Task):
    """Task with examples in arrays.

    Training: each epoch contains every example once, in a random order drawn for that epoch.
    Evaluation: all examples, in order.

    Args:
        train: Arrays [examples, ...] for training, in stored form: inputs, targets, and optional
            weights.
        evaluation: The same arrays for evaluation.
        options: See `Task`.
        **common: `data_dir` and `seed`, see `Task`.
    """

    def __init__(
        self,
        train: tuple[np.ndarray, ...],
        evaluation: tuple[np.ndarray, ...],
        *,
        options: dict[str, Any],
        **common: Any,
    ) -> None:
        super().__init__(options=options, **common)
        self._train, self._evaluation = train, evaluation

    def to_model(self, *stored: tf.Tensor) -> tuple[Any, ...]:
        """Convert a stored batch to the model's format."""
        return stored

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        rows = tf.data.Dataset.counter(epoch).flat_map(self._order)
        batches = _gathered(self._train, rows.batch(size, drop_remainder=True), self.to_model)
        return endless(batches).prefetch(tf.data.AUTOTUNE)

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        return in_order(self._evaluation, batch_size, self.to_model)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in one pass over the training examples."""
        return max(1, len(self._train[0]) // integer("batch_size", batch_size))

    def _order(self, epoch: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        order = random_order(len(self._train[0]), seed)
        return tf.data.Dataset.from_tensor_slices(order)


def in_order(
    arrays: Sequence[np.ndarray], batch_size: int, to_model: Callable[..., tuple[Any, ...]]
) -> tf.data.Dataset:
    """Return the rows of the arrays once, in order, as batches in the model's format.

    Under a `tf.distribute` strategy, `Dataset.cache` can lose elements (measured with TensorFlow
    2.21: `evaluate` saw 752 to 891 of 1,000 examples). The arrays need no cache.
    """
    batches = tf.data.Dataset.range(len(arrays[0])).batch(integer("batch_size", batch_size))
    return _gathered(arrays, batches, to_model).prefetch(tf.data.AUTOTUNE)


def _gathered(
    arrays: Sequence[np.ndarray], rows: tf.data.Dataset, to_model: Callable[..., tuple[Any, ...]]
) -> tf.data.Dataset:
    # Create the tensors outside a dataset's graph and on the CPU, where tf.data runs.
    with tf.init_scope(), tf.device("CPU"):
        stored = [tf.constant(array) for array in arrays]

    def gather(rows: tf.Tensor) -> tuple[Any, ...]:
        return to_model(*(tf.gather(array, rows) for array in stored))

    return rows.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
