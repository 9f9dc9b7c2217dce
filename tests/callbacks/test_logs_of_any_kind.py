"""Metrics and logs that are variables, Python numbers or NumPy values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard

WAYS = {
    "graph": {"jit_compile": False},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


class Count(keras.metrics.Metric):
    """Number of examples, whose result is the variable itself."""

    def __init__(self):
        super().__init__(name="count")
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], "float32"))

    def result(self):
        return self.total


class Logs(keras.Model):
    """Model whose train step returns logs of a chosen kind."""

    def __init__(self, logs):
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.last = self.add_weight(name="last", shape=(), initializer="zeros", trainable=False)
        self.logs = logs

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.apply(
            tape.gradient(loss, self.out.trainable_variables), self.out.trainable_variables
        )
        self.last.assign(loss)
        return self.logs(self, loss)


def data(*bad):
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    x[list(bad)] = np.nan
    return x, np.ones((16, 1), "float32")


def fit(model, xy, *callbacks):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(*xy, callbacks=list(callbacks), **options).history


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "policy"), [("graph", "skip"), ("xla", "stop"), ("eager", "skip"), ("eager", "stop")]
)
def test_a_metric_whose_result_is_its_variable(way, policy):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Count()], **WAYS[way])
    guard = NonFiniteGuard(policy, capsule_dir=None, verbose=0)
    history = fit(model, data(5), guard)
    assert [event.step for event in guard.events] == [1]
    assert history["count"] == [12.0 if policy == "skip" else 4.0]
    assert fit(model, data())["count"] == [16.0]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_logs_of_a_custom_train_step_that_are_variables(way):
    model = Logs(lambda model, loss: {"loss": model.last, "seen": model.last})
    model.compile("sgd", **WAYS[way])
    guard, monitor = NonFiniteGuard("skip", capsule_dir=None, verbose=0), GradientMonitor(verbose=0)
    fit(model, data(5), guard, monitor)
    assert [event.step for event in guard.events] == [1]
    assert np.isfinite(float(model.last))
    assert np.isfinite(monitor.history.loss).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "number", [lambda loss: float(loss), lambda loss: loss.numpy(), lambda loss: np.array(loss)]
)
def test_the_loss_of_an_eager_train_step_that_is_a_number(number):
    model = Logs(lambda model, loss: {"loss": number(loss), "half": 0.5, "name": 1})
    model.compile("sgd", run_eagerly=True)
    guard, monitor = NonFiniteGuard("skip", capsule_dir=None, verbose=0), GradientMonitor(verbose=0)
    fit(model, data(5), guard, monitor)
    assert [event.step for event in guard.events] == [1]
    assert np.isfinite(monitor.history.loss).tolist() == [True, False, True, True]


def test_a_loss_that_is_returned_as_a_variable():
    model = Logs(lambda model, loss: {"loss": loss})
    model.compile("sgd", jit_compile=False)
    model.compute_loss = lambda *args, **kwargs: model.last
    step = model.train_step

    def train_step(batch):
        model.compute_loss(*batch)
        return step(batch)

    model.train_step = train_step
    monitor = GradientMonitor(verbose=0)
    fit(model, data(), monitor)
    assert np.isfinite(monitor.history.loss).all()
