"""Monitoring of custom training loops."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientHistory, GradientMonitor


def loop(model, compile_step):
    """Return a train step over one batch, written as a user would write it."""
    optimizer = keras.optimizers.SGD(0.1)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return optimizer, (tf.function(step) if compile_step else step)


def batches(data):
    x, y = data
    return [(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]


@functools.cache
def fitted_norms():
    """Return the norms of three steps of an ordinary fit."""
    model, data = compiled("dense")
    monitor = GradientMonitor(verbose=0)
    fit(model, data, callbacks=[monitor])
    return monitor.history.norms


@pytest.mark.slow
@pytest.mark.parametrize("compile_step", [True, False])
def test_a_loop_records_what_fit_records(compile_step):
    model, data = compiled("dense")
    optimizer, step = loop(model, compile_step)
    monitor = GradientMonitor()
    with monitor.watch(optimizer, model.trainable_variables):
        for x, y in batches(data):
            step(x, y)
    np.testing.assert_allclose(monitor.history.norms, fitted_norms(), rtol=1e-6)
    assert monitor.history.steps.tolist() == [0, 1, 2]
    assert "apply" not in vars(optimizer)


def test_a_second_watch_of_a_compiled_loop_goes_on():
    model, data = compiled("dense")
    optimizer, step = loop(model, compile_step=True)
    monitor = GradientMonitor()
    for _ in range(2):
        with monitor.watch(optimizer, model.trainable_variables):
            for x, y in batches(data):
                step(x, y)
    assert monitor.history.steps.tolist() == list(range(6))


def test_a_loop_in_the_directory_of_an_earlier_one(tmp_path):
    def watched(loop, batches):
        optimizer, step = loop
        monitor = GradientMonitor(log_dir=tmp_path, verbose=0)
        with monitor.watch(optimizer, model.trainable_variables):
            for x, y in batches:
                step(x, y)
        return monitor.history

    model, data = compiled("dense")
    first = loop(model, compile_step=False)
    watched(first, batches(data))
    history = watched(first, batches(data))  # continues with the optimizer
    assert history.steps.tolist() == list(range(6))
    new = watched(loop(model, compile_step=False), batches(data)[:2])
    assert new.steps.tolist() == [0, 1]
    stored = GradientHistory.load(tmp_path)
    np.testing.assert_array_equal(stored.norms, new.norms)


def test_only_the_given_variables_are_recorded():
    model, data = compiled("dense")
    optimizer, step = loop(model, compile_step=True)
    monitor = GradientMonitor()
    last = model.layers[-1].trainable_variables
    with monitor.watch(optimizer, last):
        step(*batches(data)[0])
    assert [name.rpartition("/")[2] for name in monitor.history.variables] == ["kernel", "bias"]
    assert monitor.history.norms.shape == (1, 2)


def test_weights_are_bit_identical():
    weights = []
    for watched in (True, False):
        model, data = compiled("dense")
        optimizer, step = loop(model, compile_step=True)
        monitor = GradientMonitor()
        if watched:
            with monitor.watch(optimizer):
                [step(*batch) for batch in batches(data)]
        else:
            [step(*batch) for batch in batches(data)]
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_under_a_strategy(two_replicas):
    with two_replicas.scope():
        model, data = compiled("dense")
        optimizer, step = loop(model, compile_step=False)
        optimizer.build(model.trainable_variables)
    monitor = GradientMonitor()
    run = tf.function(lambda x, y: two_replicas.run(step, args=(x, y)))
    with monitor.watch(optimizer, model.trainable_variables):
        for x, y in two_replicas.experimental_distribute_dataset(
            tf.data.Dataset.from_tensor_slices(data).batch(8)
        ):
            run(x, y)
    assert monitor.history.replica_norms.shape == (3, 2, 4)


def test_an_exception_leaves_nothing_behind():
    model, data = compiled("dense")
    optimizer, step = loop(model, compile_step=False)
    monitor = GradientMonitor()

    def interrupted():
        with monitor.watch(optimizer):
            step(*batches(data)[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert "apply" not in vars(optimizer)
    assert len(monitor.history) == 1


def test_a_loop_compiled_before_is_reported(capsys):
    model, data = compiled("dense")
    optimizer, step = loop(model, compile_step=True)
    step(*batches(data)[0])
    monitor = GradientMonitor()
    with monitor.watch(optimizer):
        step(*batches(data)[0])
    assert "sees no gradients" in capsys.readouterr().out
    assert len(monitor.history) == 0


def test_a_fit_inside_is_refused():
    model, data = compiled("dense")
    optimizer, _ = loop(model, compile_step=True)
    monitor = GradientMonitor()
    with monitor.watch(optimizer), pytest.raises(RuntimeError, match="still running"):
        fit(model, data, callbacks=[monitor])


class ConvertedByAutograph(keras.optimizers.SGD):
    """Optimizer that depends on AutoGraph, as code called in a `tf.function` may."""

    def apply(self, grads, trainable_variables=None):
        if tf.reduce_sum(tf.abs(grads[0])) > 1e9:
            grads = [0.0 * gradient for gradient in grads]
        return super().apply(grads, trainable_variables)


def test_an_optimizer_that_needs_autograph():
    model, data = compiled("dense")
    optimizer = ConvertedByAutograph(0.1)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    monitor = GradientMonitor()
    with monitor.watch(optimizer):
        for batch in batches(data):
            step(*batch)
    assert len(monitor.history) == 3


def test_rows_lost_in_a_long_loop_are_counted(capsys):
    weight = tf.Variable(1.0)
    optimizer = keras.optimizers.SGD(1e-9)
    optimizer.build([weight])

    @tf.function
    def many():
        for _ in tf.range(5000):
            optimizer.apply([tf.constant(1.0)], [weight])

    monitor = GradientMonitor()
    with monitor.watch(optimizer, [weight]):
        many()
    assert "lost 904 steps" in capsys.readouterr().out
    assert monitor.history.steps[[0, -1]].tolist() == [904, 4999]


def adversaries(compile_step):
    """Return a critic and a generator of one weight each, with a train step for each."""
    weights = [tf.Variable([1.0, 2.0], name=name) for name in ("critic", "generator")]
    optimizers = [keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1)]
    for optimizer, weight in zip(optimizers, weights, strict=True):
        optimizer.build([weight])

    def step(number):
        def apply(size):
            optimizers[number].apply([size * tf.ones(2)], [weights[number]])

        return tf.function(apply) if compile_step else apply

    return weights, optimizers, step(0), step(1)


@pytest.mark.parametrize("compile_step", [True, False])
def test_a_step_with_several_optimizers_is_one_row(compile_step):
    _, (first, second), critic, generator = adversaries(compile_step)
    monitor = GradientMonitor(verbose=0)
    with monitor.watch({"critic": first, "generator": second}):
        for step in range(20):
            critic(tf.constant(1.0 + step))
            generator(tf.constant(2.0))
    history = monitor.history
    assert history.steps.tolist() == list(range(20))
    assert history.present.all()
    np.testing.assert_allclose(history.norms[:, 0], np.sqrt(2) * np.arange(1, 21), rtol=1e-6)
    np.testing.assert_allclose(history.norms[:, 1], 2 * np.sqrt(2), rtol=1e-6)
    assert list(monitor.by_optimizer) == ["critic", "generator"]
    assert monitor.by_optimizer["generator"].steps.tolist() == list(range(20))


def test_a_critic_that_is_trained_more_often_counts_the_steps():
    _, optimizers, critic, generator = adversaries(True)
    monitor = GradientMonitor(verbose=0, flush_every=3)
    with monitor.watch(optimizers):
        for step in range(6):
            critic(tf.constant(1.0))
            if step % 3 == 2:
                generator(tf.constant(2.0))
            monitor.flush()
    assert monitor.history.steps.tolist() == list(range(6))
    assert monitor.history.present[:, 0].all()
    assert np.flatnonzero(monitor.history.present[:, 1]).tolist() == [2, 5]


def test_the_last_step_of_a_loop_may_lack_a_call():
    _, optimizers, critic, generator = adversaries(False)
    monitor = GradientMonitor(verbose=0)
    for _ in range(2):
        with monitor.watch(optimizers):
            critic(tf.constant(1.0))
            generator(tf.constant(2.0))
            critic(tf.constant(3.0))
            assert len(monitor.history) % 2 == 1
    assert monitor.history.steps.tolist() == [0, 1, 2, 3]
    assert monitor.history.present.tolist() == [[True, True], [True, False]] * 2


@pytest.mark.slow
def test_train_on_batch_is_recorded_inside_a_watch():
    model, data = compiled("dense")
    monitor = GradientMonitor(verbose=0)
    with monitor.watch(model.optimizer, model.trainable_variables):
        for x, y in batches(data):
            model.train_on_batch(x, y)
    np.testing.assert_allclose(monitor.history.norms, fitted_norms(), rtol=1e-6)
