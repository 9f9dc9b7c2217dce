"""Causes that a replay gives for an operation, and the effect of their remedies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from planted_in_own import Own
from planted_operations import SINGULAR, Function
from planted_steps import FAILING, empty_selection, large_weights

from gradkeeper.callbacks import Verdict, replay
from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.capsule.writer import Contents, write_capsule
from gradkeeper.callbacks.diagnosis import faults
from gradkeeper.callbacks.diagnosis._tensorflow_private import slopes_as_in_xla
from gradkeeper.callbacks.diagnosis.faults import BAD_DATA, BAD_WEIGHT, UNKNOWN
from gradkeeper.callbacks.diagnosis.replay import verdict_of_step

pytestmark = pytest.mark.slow

ROWS = pytest.mark.parametrize("name", SINGULAR)


def model_of(function: Function, x: tf.Tensor) -> keras.Model:
    """Return a model of a layer with the function, followed by a dense layer."""
    some = [keras.Input(batch_shape=x.shape), Own(function), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential(some)
    model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def losses_of(model: keras.Model, batch: Any, steps: int) -> list[float]:
    """Return the loss of each step, run eagerly."""
    losses = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=batch[1], y_pred=model(batch[0], training=True))
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    return losses


def replayed(model: keras.Model, batch: Any, folder: Path, *, step: int = 0) -> Verdict:
    """Write a capsule of this step and return the verdict of its replay."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    facts = {"step": step, "gradients": {"nonfinite": [[0]]}}
    contents = Contents(facts, model, state_of(model), [batch])
    return replay(write_capsule(folder, contents, max_bytes=1 << 20), model)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


@ROWS
def test_the_cause_of_a_singular_operation(name):
    row = SINGULAR[name]
    batch = (row.x, tf.ones((4, 1)))
    verdict = verdict_of_step(model_of(row.function, row.x), batch, compiled=row.compiled)
    cause = verdict.fault.name if verdict.fault else None
    assert (verdict.place, cause) == (row.place, row.cause)
    if row.cause is not None:
        assert verdict.layer == "own"
        assert row.advice in verdict.fault.remedy
        assert row.kind in (None, verdict.operation, verdict.gradient_of)
        assert verdict.source.is_own


@pytest.mark.parametrize("name", [name for name, row in SINGULAR.items() if row.remedied])
def test_the_remedy_of_a_singular_operation(name):
    """Check that the remedy keeps the run finite, under XLA as well, and that the loss falls."""
    row = SINGULAR[name]
    with slopes_as_in_xla():
        losses = losses_of(model_of(row.remedied, row.x), (row.x, tf.ones((4, 1))), 12)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_every_fault_with_a_remedy_is_planted_here():
    planted = {row.cause for row in SINGULAR.values()} | {each.cause for each in FAILING}
    known = {each.name for each in vars(faults).values() if isinstance(each, faults.Fault)}
    # The remedies of the first two are outside of the step; the last fault is only a fallback.
    assert known - planted == {BAD_DATA.name, BAD_WEIGHT.name, UNKNOWN.name}


@pytest.mark.parametrize("failing", FAILING, ids=lambda each: each.build.__name__)
def test_the_cause_of_a_failing_step(failing, tmp_path):
    verdict = replayed(*failing.build(False), tmp_path)
    cause = verdict.fault.name if verdict.fault else None
    assert (verdict.place, verdict.layer, cause) == (failing.place, failing.layer, failing.cause)
    assert failing.variable in (None, verdict.variable)
    assert failing.line is None or failing.line in str(verdict.source)
    assert failing.advice in verdict.fault.remedy
    if verdict.fault.name == "overflow":  # with the initial weights
        assert "learning rate" not in verdict.fault.remedy


@pytest.mark.parametrize("failing", FAILING, ids=lambda each: each.build.__name__)
def test_the_remedy_of_a_failing_step(failing):
    model, batch = failing.build(True)
    losses = [float(model.train_on_batch(*batch)) for _ in range(12)]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(value).all() for value in state_of(model).values())
    assert losses[-1] < losses[0] or failing.build is empty_selection  # whose loss is 0


def test_an_overflow_after_some_steps_may_come_from_training(tmp_path):
    verdict = replayed(*large_weights(False), tmp_path, step=5)
    assert "a lower learning rate" in verdict.fault.remedy


def assigned(variable: keras.Variable, change: tf.Tensor) -> None:
    variable.assign(variable - change)


def added(variable: keras.Variable, change: tf.Tensor) -> None:
    variable.value.assign_add(-change)


def scattered(variable: keras.Variable, change: tf.Tensor) -> None:
    rows = tf.range(tf.shape(change)[0])
    variable.value.scatter_sub(tf.IndexedSlices(change, rows))


def applied(variable: keras.Variable, change: tf.Tensor) -> None:
    tf.raw_ops.ResourceApplyGradientDescent(
        var=variable.value.handle, alpha=1.0, delta=tf.identity(change)
    )


class TwoUpdates(keras.Model):
    """Model with two updates in a step: the second loss depends on the first update."""

    def __init__(self, update: Callable | type[keras.optimizers.Optimizer]) -> None:
        super().__init__()
        self.a = layers.Dense(1, "relu", False, kernel_initializer="ones", name="a")
        self.b = layers.Dense(1, name="b")
        is_optimizer = isinstance(update, type)
        self.one = update(0.1) if is_optimizer else None
        self.update = None if is_optimizer else update

    def call(self, x: Any) -> Any:
        return self.b(self.a(x))

    def change(self, loss: tf.Tensor, tape: tf.GradientTape, variables: list) -> None:
        gradients = tape.gradient(loss, variables)
        if self.one is not None:
            self.one.apply(gradients, variables)
            return
        for variable, gradient in zip(variables, gradients, strict=True):
            self.update(variable, 0.1 * gradient)

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            first = tf.reduce_mean(tf.sqrt(self.a(x)))
        self.change(first, tape, self.a.trainable_variables)
        with tf.GradientTape() as tape:
            second = tf.reduce_mean(self(x))
        gradients = tape.gradient(second, self.b.trainable_variables)
        self.optimizer.apply(gradients, self.b.trainable_variables)
        return {"loss": second}


@pytest.mark.parametrize(
    "update",
    [keras.optimizers.SGD, keras.optimizers.Adam, assigned, added, scattered, applied],
    ids=lambda each: each.__name__,
)
def test_the_first_of_two_updates_is_reported(update):
    """Check that a weight changed in the same step is not reported as bad from an earlier step."""
    model = TwoUpdates(update)
    x = tf.constant([[0.5, 1.0], [-1.0, -1.0]])
    model(x)
    model.compile("sgd", jit_compile=False)
    model.optimizer.build(model.b.trainable_variables)
    if model.one is not None:
        model.one.build(model.a.trainable_variables)
    verdict = verdict_of_step(model, x)
    assert (verdict.place, verdict.fault.name) == ("backward", "gradient of a root at 0")
    assert "tf.sqrt(self.a(x))" in str(verdict.source)
    assert verdict.variable == ("b/kernel" if model.one is None else "a/kernel")
