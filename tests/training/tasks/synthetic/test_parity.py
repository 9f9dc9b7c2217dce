"""Parity: lengths, padding, classes and the mask of the model."""

import math

import numpy as np
import tensorflow as tf

from gradkeeper import zoo


def sizes_of(batch, longest):
    """Check the bits, their padding and the classes; return the sizes n, which count the answer."""
    inputs, targets = (part.numpy() for part in batch)
    assert inputs.shape[1] == longest - 1
    sizes = []
    for row, odd in zip(inputs.tolist(), targets, strict=True):
        bits = [token - 1 for token in row if token != 0]
        assert row == [bit + 1 for bit in bits] + [0] * (longest - 1 - len(bits))
        assert set(bits) <= {0, 1}
        assert sum(bits) % 2 == odd
        sizes.append(len(bits) + 1)
    return np.array(sizes)


def test_lengths_and_classes(load):
    task = load("parity", length=7, evaluation_length=12)
    batch = task.sample(2_000, tf.constant([0, 0], tf.int64))
    sizes, counts = np.unique(sizes_of(batch, 7), return_counts=True)
    assert sizes.tolist() == [3, 4, 5, 6, 7]
    np.testing.assert_allclose(counts / 2_000, 1 / 5, atol=0.03)
    assert abs(batch[1].numpy().mean() - 0.5) < 0.03
    (evaluation,) = task.evaluation_dataset(1_000)
    assert set(sizes_of(evaluation, 12)) == {7, 8, 9, 10, 11, 12}
    assert task.baseline == math.log(2)


def test_evaluation_may_have_the_longest_training_size_only(load):
    task = load("parity", length=3, evaluation_length=3)
    evaluation = task.sample_evaluation(100, tf.constant([0, 0], tf.int64))
    assert set(sizes_of(evaluation, 3)) == {3}


def test_padding_is_masked(load):
    task = load("parity")
    model = zoo.create_model(
        "gru",
        input_shape=task.input_shape,
        output_units=task.output_units,
        task=task.head,
        units=3,
        seed=0,
        **task.model_options,
    )
    short, padded = (model(np.array([[2, 1, *zeros]])) for zeros in ([], [0, 0, 0]))
    np.testing.assert_allclose(short, padded, atol=1e-6)
    assert not np.allclose(short, model(np.array([[2, 1, 1, 1, 1]])), atol=1e-6)
