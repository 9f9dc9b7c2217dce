"""The guard with finite gradients: non-finite updates, states, learning rates, losses and logs."""

import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard, replay
from gradkeeper.callbacks.guard.checks import reported_rate

pytestmark = pytest.mark.slow

BATCH = 8
GRAPH = {"jit_compile": False}
WAYS: dict[str, dict[str, Any]] = {
    "graph": GRAPH,
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "several steps": {"jit_compile": False, "steps_per_execution": 4},
    "xla and several steps": {"jit_compile": True, "steps_per_execution": 4},
}


def data(batches: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(batches * BATCH, 5)).astype("float32")
    return x, x[:, :1].copy()


def dense(optimizer: Any, how: dict[str, Any] = WAYS["eager"], **options: Any) -> keras.Model:
    """Return a model of two dense layers; `options` apply to the first layer."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(3, "relu", name="body", **options), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile(optimizer, "mse", **how)
    return model


def guard(policy: Any = "skip", **options: Any) -> NonFiniteGuard:
    return NonFiniteGuard(policy, **{"verbose": 0, "capsule_dir": None, **options})


def fit(model: keras.Model, xy: Any, *callbacks: Any, **options: Any) -> keras.callbacks.History:
    batches = tf.data.Dataset.from_tensor_slices(tuple(xy)).batch(BATCH)
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return model.fit(
        batches.with_options(untuned),
        callbacks=list(callbacks),
        verbose=0,
        shuffle=False,
        **options,
    )


def state(model: keras.Model) -> list[np.ndarray]:
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    return [keras.ops.convert_to_numpy(v) for v in [*model.variables, *optimizer]]


def is_finite(model: keras.Model) -> bool:
    return all(np.isfinite(each.astype("float64")).all() for each in state(model))


@keras.saving.register_keras_serializable("test_guard_updates")
class UnitColumns(keras.constraints.Constraint):
    """Constraint that divides each column by its norm; 0/0 where the norm is 0."""

    def __call__(self, w):
        return w / keras.ops.norm(w, axis=0, keepdims=True)


class SetsTheRate(keras.callbacks.Callback):
    """Set the learning rate before step 3."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            self.model.optimizer.learning_rate = self._rate


@pytest.mark.parametrize(
    ("kind", "how"),
    [("constraint", "xla"), ("epsilon of 0", "eager"), ("epsilon of 0", "several steps")],
)
def test_an_update_that_is_not_finite_leaves_no_trace(kind, how):
    how = WAYS[how]
    if kind == "constraint":
        kernel = {"kernel_initializer": "zeros", "kernel_constraint": UnitColumns()}
        model = dense(keras.optimizers.SGD(0.0), how, **kernel)
    else:
        model = dense(keras.optimizers.Adam(epsilon=0.0), how, kernel_initializer="zeros")
        model.optimizer.build(model.trainable_variables)
    before, watch = state(model), guard(max_consecutive=3)
    fit(model, data(), watch)
    assert [(event.step, event.cause) for event in watch.events] == [
        (n, "update") for n in range(3)
    ]
    assert watch.events[0].layers[0] == "body"
    assert "the update makes body/kernel" in str(watch.events[0])
    for was, now in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(was, now)


def test_updates_are_checked_if_they_may_fail_or_on_request():
    plain = dense(keras.optimizers.SGD(0.0), kernel_initializer="zeros", kernel_constraint=None)
    plain.layers[0].kernel.constraint = keras.constraints.UnitNorm()  # divides by norm + epsilon
    unchecked, checked = guard(), guard(check_updates=True)
    fit(plain, data(1), unchecked)
    fit(plain, data(1), checked)
    assert not unchecked.events
    assert not checked.events
    kernel = {"kernel_initializer": "zeros", "kernel_constraint": UnitColumns()}
    off = dense(keras.optimizers.SGD(0.0), **kernel)
    fit(off, data(1), guard(check_updates=False))
    assert not is_finite(off)


def test_a_policy_that_refuses_nothing_names_the_step_all_the_same():
    kernel = {"kernel_initializer": "zeros", "kernel_constraint": UnitColumns()}
    model, watch = dense(keras.optimizers.SGD(0.0), **kernel), guard("warn")
    fit(model, data(2), watch)
    assert (watch.events[0].step, watch.events[0].cause) == (0, "update")
    assert not is_finite(model)


@pytest.mark.parametrize(("rate", "how"), [(np.nan, "eager"), (np.inf, "graph"), (1e38, "xla")])
def test_a_learning_rate_that_is_not_finite_is_refused(rate, how):
    model, watch = dense("adam", WAYS[how]), guard("stop")
    fit(model, data(), SetsTheRate(rate), watch)
    (event,) = watch.events
    assert (event.step, event.cause) == (3, "learning_rate")
    assert str(np.float32(rate)) in str(event) or "1e+38" in str(event)
    model.optimizer.learning_rate = 1e-3
    assert is_finite(model)
    assert model.optimizer.iterations == 3


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("constraint", "a constraint divides by a norm of 0"),
        ("epsilon", "the optimizer divides 0 by 0"),
        ("rate", "the learning rate is nan"),
    ],
)
def test_the_replay_says_what_was_not_finite_in_the_update(kind, cause, tmp_path):
    if kind == "constraint":
        kernel = {"kernel_initializer": "zeros", "kernel_constraint": UnitColumns()}
        model = dense(keras.optimizers.SGD(0.0), **kernel)
    elif kind == "epsilon":
        model = dense(keras.optimizers.Adam(epsilon=0.0), kernel_initializer="zeros")
    else:
        model = dense(keras.optimizers.SGD(np.nan))
    watch = guard("stop", capsule_dir=tmp_path)
    fit(model, data(2), watch)
    verdict = replay(watch.events[0].capsule, model)
    assert verdict.place == "optimizer"
    assert re.search(cause, verdict.fault.name)


@pytest.mark.parametrize(
    ("rates", "reported"),
    [([0.1, np.nan], np.nan), ([1e38, np.nan, 0.1], 1e38), ([0.1, 0.2], 0.2), ([], np.nan)],
)
def test_of_several_learning_rates_the_first_unusable_one_is_reported(rates, reported):
    assert_equal = np.testing.assert_array_equal
    assert_equal(reported_rate([tf.constant(r, tf.float64) for r in rates]).numpy(), reported)


def test_a_schedule_that_is_not_finite_is_refused():
    @keras.saving.register_keras_serializable("test_guard_updates")
    class Ends(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1.0 - keras.ops.cast(step >= 2, "float32"))

    model, watch = dense(keras.optimizers.SGD(Ends())), guard("stop")
    fit(model, data(), watch)
    assert [(event.step, event.cause) for event in watch.events] == [(2, "learning_rate")]


def test_a_gradient_whose_square_overflows_does_not_reach_adams_moments():
    x, y = data(2)
    y[:BATCH] = 1e21
    model, watch = dense("adam", GRAPH), guard()
    model.compile("adam", lambda y, predicted: y * predicted, jit_compile=False)
    fit(model, (x, y), watch)
    assert [(event.step, event.cause) for event in watch.events] == [(0, "norm")]
    assert is_finite(model)


class Codes(keras.layers.Layer):
    """Layer whose codebook is a moving average divided by the usage count of each code."""

    def build(self, shape):
        self.book = self.add_weight(name="book", shape=(2,), initializer="ones", trainable=False)
        # An intentionally infinite value must not cause a refused step.
        self.lowest = self.add_weight(
            name="lowest",
            shape=(),
            initializer=keras.initializers.Constant(np.inf),
            trainable=False,
        )

    def call(self, x, training=None):
        if training:
            used = keras.ops.sum(keras.ops.cast(x > 0, "float32"))
            self.book.assign(0.9 * self.book + 0.1 * keras.ops.sum(x) / used)
        return x


@pytest.mark.parametrize("how", ["eager", "xla and several steps"])
def test_a_state_that_is_not_finite_is_refused_with_the_step(how):
    def trained(xy):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), Codes(name="codes"), keras.layers.Dense(1)])
        model.compile("adam", "mse", **WAYS[how])
        watch = guard()
        fit(model, xy, watch)
        return model, watch.events

    x, y = data(4)
    x[BATCH : 2 * BATCH] = -0.0
    kept = np.r_[0:BATCH, 2 * BATCH : 4 * BATCH]
    model, events = trained((x, y))
    expected, none = trained((x[kept], y[kept]))
    assert not none
    assert [(event.step, event.cause, event.layers) for event in events] == [
        (1, "state", ("codes",))
    ]
    for a, b in zip(state(model), state(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["eager", "several steps"])
def test_states_of_recurrent_layers_leave_no_trace(how):
    def trained(xy):
        keras.utils.set_random_seed(1)
        layers = [
            keras.Input(batch_shape=(BATCH, 2, 1)),
            keras.layers.LSTM(3, stateful=True, return_sequences=True, unroll=True),
            keras.layers.Bidirectional(keras.layers.SimpleRNN(2, stateful=True, unroll=True)),
            keras.layers.Dense(1),
        ]
        model = keras.Sequential(layers)
        model.compile("adam", "mse", **WAYS[how])
        watch = guard()
        fit(model, xy, watch)
        lstm, both = model.layers[:2]
        states = [*lstm.states, *both.forward_layer.states, *both.backward_layer.states]
        values = [keras.ops.convert_to_numpy(each) for each in states]
        return watch.events, [*state(model), *values]

    x, y = data(4)
    x = x[:, :2]
    x[BATCH + 2] = np.nan
    kept = np.r_[0:BATCH, 2 * BATCH : 4 * BATCH]
    events, seen = trained((x, y))
    assert [event.step for event in events] == [1]
    for a, b in zip(seen, trained((x[kept], y[kept]))[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_variable_in_any_attribute_of_a_layer_leaves_no_trace():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.raw = tf.Variable(0.0, trainable=False)
            self.some = {"list": [keras.Variable(0.0, trainable=False)]}

        def call(self, x):
            self.raw.assign_add(keras.ops.sum(x))
            return x

    keras.utils.set_random_seed(1)
    counts = Counts()
    model = keras.Sequential([keras.Input((5,)), counts, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x, y = data(2)
    x[0] = np.nan
    fit(model, (x, y), guard())
    np.testing.assert_allclose(counts.raw.numpy(), x[BATCH:].sum(), rtol=1e-5)


class Own(keras.Model):
    """Model with a custom train step whose loss is unknown before the update."""

    def __init__(self, loss=None):
        super().__init__()
        self.out = keras.layers.Dense(1, name="out")
        self.own_loss = loss or (lambda y, p: tf.reduce_mean(tf.square(y - p)))

    def call(self, x):
        return self.out(x)

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.own_loss(y, self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss, "twice": 2 * loss}


def own(how: dict[str, Any] = GRAPH, **options: Any) -> Own:
    keras.utils.set_random_seed(1)
    model = Own(**options)
    model(np.ones((1, 5), "float32"))
    model.compile("adam", **how)
    return model


class Batches(keras.callbacks.Callback):
    """Record the logs of every batch."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(dict(logs))


@pytest.mark.parametrize(("how", "monitors"), [("graph", 0), ("eager", 1), ("xla", 1)])
def test_a_healthy_run_has_the_same_logs_with_and_without_the_guard(how, monitors):
    def logged(*callbacks):
        batches = Batches()
        fit(own(WAYS[how]), data(), *callbacks, batches)
        return batches.seen

    expected = logged()
    assert expected[0]["loss"] > 0
    seen = logged(*[GradientMonitor(verbose=0)] * monitors, guard())
    if how == "xla":  # compiles a program with the guard differently
        seen = [pytest.approx(each, rel=1e-5) for each in seen]
    assert seen == expected


def mean_of_the_positive(y, predicted):
    """Return the mean of the selected values; 0/0 where the selection is empty."""
    return tf.reduce_mean(tf.boolean_mask(tf.square(predicted - y), y > 0))


@pytest.mark.parametrize("how", ["eager", "several steps"])
def test_a_loss_known_only_after_the_update_refuses_the_step(how):
    x, y = data(4)
    y[BATCH : 2 * BATCH] = -1.0
    kept = np.r_[0:BATCH, 2 * BATCH : 4 * BATCH]
    model, watch = own(WAYS[how], loss=mean_of_the_positive), guard()
    fit(model, (x, y), watch)
    assert [(event.step, event.cause) for event in watch.events] == [(1, "loss")]
    assert "the loss is nan; every gradient is finite" in str(watch.events[0])
    if how == "several steps":
        expected = own(loss=mean_of_the_positive)
        fit(expected, (x[kept], y[kept]), guard())
        for a, b in zip(state(model), state(expected), strict=True):
            np.testing.assert_array_equal(a, b)
    ignored = guard(check_loss=False)
    fit(model, (x, y), ignored)
    assert not ignored.events


@pytest.mark.eager
def test_a_large_loss_in_float64_is_finite():
    class Wide(keras.Sequential):
        def compute_loss(self, *args, **kwargs):
            return tf.cast(super().compute_loss(*args, **kwargs), tf.float64) + 1e300

    model, watch = Wide([keras.Input((5,)), keras.layers.Dense(1)]), guard()
    model.compile("adam", "mse", jit_compile=False)
    fit(model, data(1), watch)
    assert not watch.events


def test_a_replica_with_an_empty_batch_is_named(two_replicas):
    with two_replicas.scope():
        model = own()
    x, y = (each[: BATCH + 1] for each in data(2))
    watch = guard()
    fit(model, (x, y), watch)
    (event,) = watch.events
    assert (event.step, event.cause, event.replicas) == (1, "loss", (1,))
    assert "on replica 1 of 2" in str(event)
    assert model.optimizer.iterations == 1
