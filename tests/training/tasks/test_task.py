"""Datasets that yield another epoch at each iteration."""

import tensorflow as tf

from gradkeeper.training.tasks.task import epoch_by_epoch


def test_epoch_by_epoch():
    data = epoch_by_epoch(lambda epoch: tf.data.Dataset.counter(10 * epoch), 3)
    assert data.cardinality().numpy() == 3
    epochs = [[int(batch) for batch in data] for _ in range(3)]
    assert epochs == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]


def test_two_datasets_start_with_the_same_epoch(load):
    task = load("arrays")
    first, again = (next(iter(task.train_dataset(4)))[0] for _ in range(2))
    assert bool(tf.reduce_all(first == again))
