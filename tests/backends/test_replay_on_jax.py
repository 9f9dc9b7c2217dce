"""Replay of capsules on JAX: steps that call JAX, and singular operations."""

from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("the tests call JAX", allow_module_level=True)

import jax
import jax.numpy as jnp
from keras import layers
from planted import dense, stacked
from planted_in_jax import Concrete, train_step_of_ones_own
from planted_in_own import Own
from singular import SINGULAR

from gradkeeper.callbacks.capsule import CapsuleError
from gradkeeper.callbacks.diagnosis.jax.step import run_step
from gradkeeper.callbacks.diagnosis.replay import verdict_of_step


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module", autouse=True)
def _compiled_operations_are_released():
    yield
    jax.clear_caches()


@pytest.mark.parametrize("name", SINGULAR)
def test_the_cause_of_a_singular_operation(name):
    row = SINGULAR[name]
    some = [keras.Input(batch_shape=row.x.shape), Own(row.function), layers.Flatten()]
    model = keras.Sequential([*some, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.optimizer.build(model.trainable_variables)
    verdict = verdict_of_step(model, (jnp.asarray(row.x), jnp.ones((4, 1))))
    cause = verdict.fault.name if verdict.fault else None
    assert (verdict.place, cause) == (row.place, row.cause)
    if row.cause is not None:
        assert verdict.layer == "own"
        assert row.advice in verdict.fault.remedy
        assert row.primitive in (None, verdict.operation, verdict.gradient_of)
        assert verdict.source.is_own


@pytest.mark.slow
def test_the_gradients_are_those_of_jax():
    """The recorder differentiates each operation separately."""
    some = [
        layers.Conv1D(4, 2, activation="gelu"),
        layers.BatchNormalization(),
        layers.LSTM(3, return_sequences=True),
        layers.LayerNormalization(),
        layers.Dropout(0.5),
        layers.Flatten(),
        dense(activation="softmax"),
    ]
    x = np.random.default_rng(0).normal(size=(4, 4, 2)).astype("float32")
    model, xy = stacked(some, x, "categorical_crossentropy")
    batch = (jnp.asarray(x), jnp.asarray(xy["y"]))
    model.optimizer.build(model.trainable_variables)
    trace = run_step(model, batch)
    lists = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    state = [[each.value for each in some] for some in lists]
    of_optimizer = [each.value for each in model.optimizer.variables]

    def loss_of(variables: Any) -> Any:
        options = {"training": True, "optimizer_variables": of_optimizer}
        return model.compute_loss_and_updates(variables, *state[1:], *batch, None, **options)[0]

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(state[0])
    assert trace.mean_loss == pytest.approx(float(loss), rel=1e-5)
    assert len(trace.gradients) == len(gradients) == len(model.trainable_variables)
    for one, other in zip(trace.gradients.values(), gradients, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=2e-4, atol=1e-6)


def test_a_train_step_that_cannot_be_compiled_is_refused():
    model, xy = train_step_of_ones_own(Concrete)
    with pytest.raises(CapsuleError, match=r"only a train step that jax\.jit can compile"):
        verdict_of_step(model, (jnp.asarray(xy["x"]), jnp.asarray(xy["y"])))
