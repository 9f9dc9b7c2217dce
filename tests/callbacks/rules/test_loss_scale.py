"""Detection of custom train steps that do not call `scale_loss`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientMonitor

pytestmark = pytest.mark.slow

WAYS = {
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "XLA and several steps": {"jit_compile": True, "steps_per_execution": 2},
}


class Own(keras.Model):
    """Model in mixed_float16 whose train step scales the loss as `scale_by` selects."""

    scale_by = "nothing"

    def __init__(self):
        super().__init__()
        self.body = keras.layers.Dense(3, "tanh", dtype="mixed_float16")
        self.head = keras.layers.Dense(1, dtype="float32")
        self.in_function = tf.function(self.scaled_loss)

    def call(self, x):
        return self.head(self.body(x))

    def scaled_loss(self, x, y):
        loss = tf.reduce_mean(tf.square(y - self(x, training=True)))
        if self.scale_by == "hand":
            return loss * tf.convert_to_tensor(self.optimizer.dynamic_scale)
        if self.scale_by in ("call", "function"):
            return self.optimizer.scale_loss(loss)
        return loss

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = (self.in_function if self.scale_by == "function" else self.scaled_loss)(*data)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


class Default(Own):
    train_step = keras.Model.train_step


def compiled(kind=Own, scale_by="nothing", *, optimizer=None, **options):
    keras.utils.set_random_seed(0)
    model = kind()
    model.scale_by = scale_by
    model(np.zeros((1, 2), "float32"))
    scaled = keras.optimizers.LossScaleOptimizer(optimizer or keras.optimizers.SGD(0.05))
    model.compile(scaled, "mse", **options)
    if scale_by == "hand":  # creates the variable that the step multiplies by
        scaled.build(model.trainable_variables)
    return model


def fit(model, *callbacks, batches=4):
    random = np.random.default_rng(0)
    x = random.normal(size=(8 * batches, 2)).astype("float32")
    model.fit(x, x[:, :1], 8, shuffle=False, verbose=0, callbacks=list(callbacks))


def found(monitor):
    return [each for each in monitor.findings if each.rule == "loss_not_scaled"]


@pytest.mark.parametrize("way", ["eager", "XLA and several steps"])
def test_names_the_line_that_is_missing(way, capsys):
    model, monitor = compiled(**WAYS[way]), GradientMonitor()
    fit(model, monitor)
    fit(model, monitor)
    (finding,) = found(monitor)
    assert (finding.step, finding.severity, finding.evidence) == (0, "error", {"loss_scale": 2**15})
    assert "32,768 times too small" in finding.message
    assert "`loss = self.optimizer.scale_loss(loss)`" in finding.advice
    assert capsys.readouterr().out.count("[loss_not_scaled]") == 1
    assert "scale_loss" not in vars(model.optimizer)


def test_by_the_policy_alone():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        keras.utils.set_random_seed(0)
        model = Own()
        model.compile("sgd", run_eagerly=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    monitor = GradientMonitor(verbose=0)
    fit(model, monitor)
    assert len(found(monitor)) == 1


@pytest.mark.parametrize(
    ("scale_by", "way"),
    [
        ("call", "XLA and several steps"),
        ("function", "graph"),
        ("function", "eager"),
        ("hand", "graph"),  # a product instead of a call
    ],
)
def test_no_alarm_where_the_loss_is_scaled(scale_by, way):
    model, monitor = compiled(scale_by=scale_by, **WAYS[way]), GradientMonitor(verbose=0)
    fit(model, monitor)
    assert len(monitor.history.steps) == 4
    assert not found(monitor)


def test_no_alarm_in_the_default_train_step():
    inner = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    model, monitor = compiled(Default, optimizer=inner, **WAYS["graph"]), GradientMonitor(verbose=0)
    fit(model, monitor)
    assert len(monitor.history.steps) == 4
    assert not found(monitor)


def test_no_alarm_where_a_function_was_traced_before_the_monitor_starts():
    model, monitor = compiled(scale_by="function", **WAYS["graph"]), GradientMonitor(verbose=0)
    fit(model)
    fit(model, monitor)
    assert len(monitor.history.steps) == 4
    assert not found(monitor)


@pytest.mark.parametrize("scale_by", ["nothing", "call"])
def test_on_several_replicas(scale_by, two_replicas):
    with two_replicas.scope():
        model = compiled(scale_by=scale_by)
    monitor = GradientMonitor(verbose=0)
    fit(model, monitor)
    assert len(found(monitor)) == (scale_by == "nothing")


def loop(model, monitor, function):
    """Run two steps under `watch`, with gradients in a separate function or with the update."""
    variables, data = model.trainable_variables, (tf.ones([8, 2]), tf.ones([8, 1]))
    with monitor.watch(model.optimizer, variables):
        for _ in range(2):
            function(data)


@pytest.mark.parametrize(("scale_by", "jit_compile"), [("nothing", True), ("call", False)])
def test_in_a_compiled_loop(scale_by, jit_compile):
    model, monitor = compiled(scale_by=scale_by), GradientMonitor(verbose=0)
    model.optimizer.build(model.trainable_variables)
    loop(model, monitor, tf.function(model.train_step, jit_compile=jit_compile))
    assert len(monitor.history.steps) == 2
    assert len(found(monitor)) == (scale_by == "nothing")


@pytest.mark.parametrize("scale_by", ["nothing", "call"])
def test_an_eager_loop_is_not_checked(scale_by):
    model, monitor = compiled(scale_by=scale_by), GradientMonitor(verbose=0)
    loop(model, monitor, model.train_step)
    assert len(monitor.history.steps) == 2
    assert not found(monitor)


def test_gradients_from_a_function_that_was_traced_before():
    model, monitor = compiled(scale_by="call"), GradientMonitor(verbose=0)
    variables = model.trainable_variables
    model.optimizer.build(variables)

    @tf.function
    def gradients(data):
        with tf.GradientTape() as tape:
            loss = model.scaled_loss(*data)
        return tape.gradient(loss, variables)

    @tf.function
    def update(gradients):
        model.optimizer.apply(gradients, variables)

    gradients((tf.ones([8, 2]), tf.ones([8, 1])))
    loop(model, monitor, lambda data: update(gradients(data)))
    assert len(monitor.history.steps) == 2
    assert not found(monitor)
