"""Datasets that yield another epoch at each iteration."""

import itertools
from collections.abc import Callable, Iterator

import tensorflow as tf


def epoch_by_epoch(
    batches_from: Callable[[tf.Tensor], tf.data.Dataset], steps: int
) -> tf.data.Dataset:
    """Return a dataset of `steps` batches that yields the next epoch at each iteration over it.

    Args:
        batches_from: Function of an epoch, int64 []; returns an endless dataset of batches that
            starts with that epoch's first batch.
        steps: Batches per epoch.
    """
    epochs = itertools.count()

    def next_epoch() -> Iterator[int]:
        yield next(epochs)

    number = tf.TensorSpec([], tf.int64)
    epoch = tf.data.Dataset.from_generator(next_epoch, output_signature=number)
    batches = epoch.flat_map(lambda start: batches_from(start).take(steps))
    counted = tf.data.experimental.assert_cardinality(steps)
    return batches.apply(counted).prefetch(tf.data.AUTOTUNE)


def endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return `batches` with infinite cardinality."""
    known = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(known)
