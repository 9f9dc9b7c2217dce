"""Custom train steps, several optimizers, and optimizers that wrap optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor

pytestmark = [pytest.mark.slow, pytest.mark.unbuilt_optimizer]

DATA = np.ones((16, 4), "float32"), np.ones((16, 1), "float32")


class Custom(keras.Model):
    """Model of two parts, for train steps that use several optimizers."""

    def __init__(self, **attributes):
        super().__init__()
        self.first, self.second = keras.layers.Dense(3), keras.layers.Dense(1)
        for name, value in attributes.items():
            setattr(self, name, value)

    def call(self, x):
        return self.second(self.first(x))

    def gradients(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        parts = [self.first.trainable_variables, self.second.trainable_variables]
        return loss, tape.gradient(loss, parts), parts


class Adversarial(Custom):
    """Model with one optimizer per part, as in a GAN; the first optimizer takes `turns` steps."""

    def __init__(self, turns=1, **attributes):
        optimizers = {
            "first_optimizer": keras.optimizers.Adam(0.01),
            "second_optimizer": keras.optimizers.SGD(0.01),
        }
        super().__init__(**{**optimizers, **attributes})
        self.turns = turns

    def train_step(self, data):
        for _ in range(self.turns):
            _, (gradients, _), (variables, _) = self.gradients(data)
            self.first_optimizer.apply(gradients, variables)
        loss, (_, gradients), (_, variables) = self.gradients(data)
        self.second_optimizer.apply(gradients, variables)
        return {"loss": loss}


@pytest.mark.slow
def test_each_optimizer_has_a_track_of_its_own():
    model = Adversarial()
    model.compile()
    monitor = GradientMonitor()
    fit(model, DATA, callbacks=[monitor])
    assert list(monitor.by_optimizer) == ["first_optimizer", "second_optimizer"]
    assert monitor.by_optimizer["second_optimizer"].norms.shape == (2, 2)
    assert monitor.history.norms.shape == (2, 4)
    np.testing.assert_array_equal(
        monitor.history.norms[:, 2:], monitor.by_optimizer["second_optimizer"].norms
    )
    assert monitor.history.learning_rate[0] == pytest.approx(0.01)


@pytest.mark.slow
def test_an_optimizer_with_several_turns_in_a_step_has_a_track_for_each():
    model = Adversarial(turns=3)
    model.compile()
    monitor = GradientMonitor()
    fit(model, DATA, callbacks=[monitor])
    names = ["first_optimizer", "first_optimizer, call 2", "first_optimizer, call 3"]
    assert list(monitor.by_optimizer) == [*names, "second_optimizer"]
    each = np.stack([monitor.by_optimizer[name].norms for name in names])
    assert len(monitor.history) == 2
    np.testing.assert_array_equal(monitor.history.norms[:, :2], each.max(axis=0))


@pytest.mark.eager
def test_optimizers_in_lists_and_in_models_inside():
    class Listed(Custom):
        def train_step(self, data):
            loss, gradients, variables = self.gradients(data)
            optimizers = self.keep["optimizers"]
            for optimizer, some, theirs in zip(optimizers, gradients, variables, strict=True):
                optimizer.apply(some, theirs)
            return {"loss": loss}

    model = Listed(keep={"optimizers": [keras.optimizers.SGD(0.1), keras.optimizers.Adam()]})
    model.compile()
    monitor = GradientMonitor()
    fit(model, DATA, callbacks=[monitor])
    assert monitor.history.present.all()
    assert len(monitor.by_optimizer) == 2


@pytest.mark.eager
def test_an_optimizer_of_a_closure_can_be_named():
    hidden = keras.optimizers.SGD(0.1)

    class Closure(Custom):
        def train_step(self, data):
            loss, gradients, variables = self.gradients(data)
            hidden.apply([*gradients[0], *gradients[1]], [*variables[0], *variables[1]])
            return {"loss": loss}

    model = Closure()
    model.compile()
    blind, seeing = GradientMonitor(verbose=0), GradientMonitor(optimizers={"hidden": hidden})
    fit(model, DATA, callbacks=[blind])
    model.compile()
    fit(model, DATA, callbacks=[seeing])
    assert len(blind.history) == 0
    assert seeing.history.present.all()
    assert list(seeing.by_optimizer) == ["hidden"]


def test_one_optimizer_applied_to_two_parts_is_one_row():
    class Parts(Custom):
        def train_step(self, data):
            loss, gradients, variables = self.gradients(data)
            for some, theirs in zip(gradients, variables, strict=True):
                self.optimizer.apply(some, theirs)
            return {"loss": loss}

    model = Parts()
    model(DATA[0])
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    monitor = GradientMonitor()
    fit(model, DATA, callbacks=[monitor])
    assert monitor.history.present.tolist() == [[True] * 4] * 2
    assert list(monitor.by_optimizer) == ["optimizer"]


class SharedOut(keras.optimizers.Optimizer):
    """Optimizer that passes each half of the variables to a separate optimizer."""

    def __init__(self, optimizers):
        super().__init__(learning_rate=0.1)
        self.members = optimizers

    def build(self, variables):
        super().build(variables)
        half = len(variables) // 2
        for member, part in zip(self.members, (variables[:half], variables[half:]), strict=True):
            member.build(part)

    def apply(self, grads, trainable_variables=None):
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        half = len(variables) // 2
        self.members[0].apply(grads[:half], variables[:half])
        self.members[1].apply(grads[half:], variables[half:])
        self.iterations.assign_add(1)


@pytest.mark.eager
def test_an_optimizer_around_optimizers():
    members = [keras.optimizers.SGD(0.1, clipnorm=1e-3), keras.optimizers.SGD(0.1)]
    model, data = compiled("dense", optimizer=SharedOut(members))
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    history = monitor.history
    assert list(monitor.by_optimizer) == ["optimizer"]
    np.testing.assert_allclose(history.applied_norms[:, :2], 1e-3, rtol=1e-4)
    np.testing.assert_allclose(history.applied_norms[:, 2:], history.norms[:, 2:], rtol=1e-6)
    reference = GradientMonitor()
    fit(*compiled("dense"), callbacks=[reference])
    np.testing.assert_allclose(history.norms[0], reference.history.norms[0], rtol=1e-6)


class Centralized(keras.optimizers.SGD):
    """Optimizer that changes the gradients before it applies them."""

    def apply(self, grads, trainable_variables=None):
        return super().apply([0.5 * gradient for gradient in grads], trainable_variables)


@pytest.mark.eager
def test_an_optimizer_that_changes_gradients_itself():
    model, data = compiled("dense", optimizer=Centralized(0.1))
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.applied_norms, 0.5 * monitor.history.norms)
    np.testing.assert_allclose(monitor.history.clip_coefficient, 0.5, rtol=1e-6)


class Bypassing(keras.optimizers.SGD):
    """Optimizer that overrides `apply_gradients` and never calls `apply`."""

    def apply_gradients(self, grads_and_vars):
        for gradient, variable in grads_and_vars:
            variable.assign_sub(0.1 * gradient)


def test_an_optimizer_that_never_calls_apply_is_named(capsys):
    model, data = compiled("dense", optimizer=Bypassing(0.1))
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    told = capsys.readouterr().out
    assert "sees no gradients" in told
    assert "Bypassing overrides apply_gradients()" in told
    assert told.count("sees no gradients") == 1
    assert len(monitor.history) == 0
    assert not monitor.findings


@pytest.mark.eager
def test_a_model_whose_optimizer_is_none():
    class Own(Custom):
        def train_step(self, data):
            loss, gradients, variables = self.gradients(data)
            self.mine.apply([*gradients[0], *gradients[1]], [*variables[0], *variables[1]])
            return {"loss": loss}

    model = Own(mine=keras.optimizers.SGD(0.1))
    model.compile(optimizer=None)
    monitor = GradientMonitor()
    fit(model, DATA, callbacks=[monitor])
    assert monitor.history.present.all()
    assert list(monitor.by_optimizer) == ["mine"]


class TrainsAnother(keras.callbacks.Callback):
    """Train another model with the same optimizer during a fit."""

    def __init__(self, train, hook):
        super().__init__()
        self.train = train
        setattr(self, hook, self._at_first)

    def _at_first(self, batch, logs=None):
        if batch <= 1:
            self.train()


def test_an_optimizer_shared_with_another_model():
    inputs = keras.Input((6,))
    body = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(body))
    other = keras.Model(inputs, model.output * 2.0)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, "mse")
    other.compile(optimizer, "mse")
    _, data = compiled("dense")
    monitor = GradientMonitor()
    nested = TrainsAnother(lambda: fit(other, data), "on_train_batch_begin")
    fit(model, data, callbacks=[monitor, nested])
    assert len(monitor.history) == 3


@pytest.mark.slow
def test_train_on_batch_inside_a_fit_is_not_a_step_of_it():
    for hook in ("on_train_batch_begin", "on_train_batch_end"):
        model, data = compiled("dense")
        monitor = GradientMonitor()
        nested = TrainsAnother(lambda m=model, d=data: m.train_on_batch(d[0], d[1]), hook)
        fit(model, data, callbacks=[monitor, nested])
        assert len(monitor.history) == 3, hook


def test_a_nested_fit_of_the_same_model_before_the_step():
    model, data = compiled("dense")
    outer, inner = GradientMonitor(), GradientMonitor()
    nested = TrainsAnother(lambda: fit(model, data, callbacks=[inner]), "on_train_batch_begin")
    fit(model, data, callbacks=[outer, nested])
    assert (len(outer.history), len(inner.history)) == (3, 6)


@pytest.mark.parametrize("first", [1, 2, 4])
def test_a_step_counts_once_where_its_optimizer_is_made_late(first):
    class MakesItsOwn(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.own, self.steps = keras.layers.Dense(1), None, 0

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            self.steps += 1
            if self.steps == first:
                self.own = keras.optimizers.SGD(0.1)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x) - y))
            gradients = tape.gradient(loss, self.trainable_variables)
            if self.own is not None:
                self.own.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    model = MakesItsOwn()
    model.compile(run_eagerly=True)
    monitor = GradientMonitor(verbose=0)
    data = np.ones((24, 3), "float32"), np.ones((24, 1), "float32")
    model.fit(*data, batch_size=4, verbose=0, callbacks=[monitor])
    assert monitor.history.steps.tolist() == list(range(6))
    seen = np.isfinite(monitor.history.norms).all(axis=1).tolist()
    assert seen[first:] == [True] * (6 - first)
    assert not any(seen[: first - 1])
