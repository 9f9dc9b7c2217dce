"""Selective copying: places, answers, weights and baseline."""

import math

import numpy as np
import pytest
import tensorflow as tf


def batch_of(task, size):
    drawn = task.sample(size, tf.constant([0, 0], tf.int64))
    return [part.numpy() for part in task.to_model(*drawn)]


@pytest.mark.parametrize(("length", "symbols", "alphabet"), [(1, 1, 4), (6, 3, 5)])
def test_tokens_are_repeated_in_their_order(load, length, symbols, alphabet):
    task = load("selective_copying", length=length, symbols=symbols, alphabet=alphabet)
    inputs, targets, weights = batch_of(task, 4_000)
    steps = length + symbols
    assert inputs.shape == targets.shape == weights.shape == (4_000, steps + symbols)
    assert (inputs[:, steps:] == alphabet - 1).all()
    for row, answer in zip(inputs[:, :steps], targets, strict=True):
        tokens = [token for token in row if token != 0]
        assert answer.tolist() == [0] * steps + tokens
    expected = [0] * steps + [(steps + symbols) / symbols] * symbols
    np.testing.assert_allclose(weights, np.tile(expected, (4_000, 1)), rtol=1e-6)
    places = (inputs[:, :steps] != 0).mean(axis=0)
    np.testing.assert_allclose(places, symbols / steps, atol=0.03)
    tokens, counts = np.unique(targets[:, steps:], return_counts=True)
    assert tokens.tolist() == list(range(1, alphabet - 1))
    np.testing.assert_allclose(counts / counts.sum(), 1 / (alphabet - 2), atol=0.02)


def test_loss_and_accuracy_count_only_the_answers(load):
    task = load("selective_copying", length=6, symbols=3, alphabet=5)
    _, targets, weights = batch_of(task, 200)
    assert task.baseline == math.log(3)
    guesses = np.full((*targets.shape, 5), -1e9, "float32")
    guesses[..., 1:4] = 0
    assert float(task.loss(targets, guesses, weights)) == pytest.approx(task.baseline, rel=1e-5)

    right = 100 * np.eye(5, dtype="float32")[targets]
    right[:, :9] = -right[:, :9]
    right[:50, 9] = -right[:50, 9]  # 50 wrong ones of 600 answers
    (accuracy,) = task.metrics
    accuracy.update_state(targets, right, weights)
    assert float(accuracy.result()) == pytest.approx(1 - 50 / 600)
