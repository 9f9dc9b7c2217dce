"""Recorded norms, compared with those of a separate `GradientTape`."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import MODELS, compiled, fit

from gradkeeper.callbacks import GradientMonitor


@functools.cache
def twin_norms(name: str) -> np.ndarray:
    """Return the norms of one epoch of a custom training loop with a tape, [steps, variables]."""
    model, (x, y) = compiled(name)
    model.optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]
    return np.array([[np.linalg.norm(g) for g in step(*batch)] for batch in batches])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_norms_equal_those_of_a_tape(name):
    model, data = compiled(name)
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    expected = twin_norms(name)
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)
    total = np.sqrt((expected**2).sum(axis=1))
    np.testing.assert_allclose(monitor.history.global_norm, total, rtol=1e-6)
    assert len(monitor.history.variables) == len(model.trainable_variables)
    assert monitor.history.steps.tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({"clipnorm": 0.05}, lambda norms, _: np.minimum(norms, 0.05)),
        ({"global_clipnorm": 0.1}, lambda norms, total: norms * np.minimum(1, 0.1 / total)),
        ({}, lambda norms, _: norms),
    ],
)
def test_applied_norms_are_those_after_clipping(clip, expected):
    model, data = compiled("dense", optimizer=keras.optimizers.SGD(0.1, **clip))
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    history = monitor.history
    wanted = expected(history.norms, history.global_norm[:, None])
    np.testing.assert_allclose(history.applied_norms, wanted, rtol=1e-5)
    assert history.clip_fraction == (1.0 if clip else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{"run_eagerly": True}, {"steps_per_execution": 2, "jit_compile": True}]
)
def test_norms_are_the_same_however_the_step_is_run(how):
    model, data = compiled("embedding", **how)
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.norms, twin_norms("embedding"), rtol=1e-5)


@pytest.mark.slow
def test_unscaled_norms_under_mixed_precision():
    plain, data = compiled("dense")
    reference = GradientMonitor()
    fit(plain, data, callbacks=[reference])
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**15)
    model, _ = compiled("dense", optimizer=scaled)
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.norms, reference.history.norms, rtol=1e-5)
    np.testing.assert_allclose(monitor.history.applied_norms, reference.history.norms, rtol=1e-5)


@pytest.mark.slow
def test_a_step_skipped_for_overflow_is_not_applied():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2e38)
    model, (x, y) = compiled("dense", optimizer=optimizer)
    monitor = GradientMonitor(verbose=0)
    fit(model, (x, 1e3 * y), callbacks=[monitor])
    assert not monitor.history.updated[0].any()
    assert monitor.history.present[0].all()


def test_a_variable_without_gradient_is_missing_not_zero():
    inputs = keras.Input((6,))
    used, unused = keras.layers.Dense(1, name="used"), keras.layers.Dense(1, name="unused")
    unused(inputs)
    model = keras.Model(inputs, used(inputs) + 0 * keras.ops.stop_gradient(unused(inputs)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        fit(model, (np.ones((8, 6)), np.ones((8, 1))), callbacks=[monitor])
    column = monitor.history.variables.index("unused/kernel")
    assert not monitor.history.present[:, column].any()
    assert np.isnan(monitor.history.norms[:, column]).all()
    assert np.isfinite(monitor.history.global_norm).all()


def test_a_model_that_its_first_train_step_builds():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = GradientMonitor()
    fit(model, (np.ones((16, 4)), np.ones((16, 1))), callbacks=[monitor])
    assert monitor.history.norms.shape == (2, 4)
    assert np.isfinite(monitor.history.norms).all()


class TwoOptimizers(keras.Model):
    """Model whose train step uses two optimizers, as in a GAN, and not `model.optimizer`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(3), keras.layers.Dense(1)
        self.first_optimizer = keras.optimizers.Adam(0.01)
        self.second_optimizer = keras.optimizers.SGD(0.01)

    def call(self, x):
        return self.second(self.first(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        variables = [self.first.trainable_variables, self.second.trainable_variables]
        first, second = tape.gradient(loss, variables)
        self.first_optimizer.apply_gradients(zip(first, variables[0], strict=True))
        self.second_optimizer.apply_gradients(zip(second, variables[1], strict=True))
        return {"loss": loss}


@pytest.mark.slow
def test_all_optimizers_of_a_custom_train_step_are_seen():
    model = TwoOptimizers()
    model.compile(loss="mse")
    monitor = GradientMonitor()
    fit(model, (np.ones((16, 4)), np.ones((16, 1))), callbacks=[monitor])
    assert monitor.history.present.shape == (2, 4)
    assert monitor.history.present.all()


class AppliesAnIterator(keras.Model):
    """Model that passes variables as an iterator in the first call and none later."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.dense(x) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        given = None if self.optimizer.built else iter(self.trainable_variables)
        self.optimizer.apply(gradients, given)
        return {"loss": loss}


def test_variables_may_come_as_an_iterator_or_be_left_out():
    model = AppliesAnIterator()
    model.compile("sgd", run_eagerly=True)
    monitor = GradientMonitor()
    fit(model, (np.ones((16, 4)), np.ones((16, 1))), callbacks=[monitor])
    assert monitor.history.present.tolist() == [[True, True]] * 2
    assert monitor.history.updated.all()


class ByHand(keras.Model):
    """Model with a train step that updates its weight without an optimizer."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def train_step(self, data):
        self.dense(data[0])
        self.dense.kernel.assign_sub(0.1 * self.dense.kernel)
        return {"loss": tf.constant(0.0)}


@pytest.mark.slow
def test_says_so_when_no_gradient_can_be_seen(capsys):
    model = ByHand()
    model.compile(loss="mse")
    monitor = GradientMonitor()
    fit(model, (np.ones((16, 4)), np.ones((16, 1))), callbacks=[monitor])
    assert "sees no gradients" in capsys.readouterr().out
    assert len(monitor.history) == 0
