"""`make_optimizer` with replicas: results of one device, and files that Keras can load."""

import functools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.training import make_optimizer

KINDS = {
    "no clipping": {},
    "clipnorm": {"clipnorm": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.02},
    "accumulation": {"gradient_accumulation_steps": 2},
    "both": {"gradient_accumulation_steps": 3, "global_clipnorm": 0.05, "weight_decay": 0.01},
}


def trained(strategy, rounds=8, name="adam", **options):
    """Return the losses up to each step, and the model."""
    with (strategy or tf.distribute.get_strategy()).scope():
        model, data = compiled("dense", optimizer=make_optimizer(name, 0.01, **options))
    losses = []
    noted = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
    )
    many = tuple(np.tile(each, (rounds, 1)) for each in data)
    fit(model, many, callbacks=[noted])
    return losses, model


def assert_equal(one, other):
    (losses, model), (its_like, its_model) = one, other
    np.testing.assert_allclose(losses, its_like, rtol=1e-5)
    for a, b in zip(model.get_weights(), its_model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@functools.cache
def alone(kind):
    return trained(None, **KINDS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_equal_one_device(two_replicas, kind):
    assert_equal(trained(two_replicas, **KINDS[kind]), alone(kind))


@pytest.mark.slow
def test_four_replicas_equal_one_device(four_replicas):
    assert_equal(trained(four_replicas, **KINDS["both"]), alone("both"))


@pytest.mark.slow
def test_scope_replica_is_that_of_keras(two_replicas):
    optimizer = make_optimizer("sgd", 0.1, clipnorm=0.05, clip_scope="replica")
    assert type(optimizer) is keras.optimizers.SGD
    options = {"rounds": 2, "name": "sgd", "global_clipnorm": 0.05, "clip_scope": "replica"}
    (together, _), (alone, _) = trained(two_replicas, **options), trained(None, **options)
    assert np.abs(np.array(together) / alone - 1).max() > 1e-4


def test_class_without_clipping_is_that_of_keras():
    assert type(make_optimizer("sgd", 0.1)) is keras.optimizers.SGD


def test_one_device_equals_keras():
    ours, _ = compiled("dense", optimizer=make_optimizer("adam", 0.01, clipnorm=0.05))
    keras_own, data = compiled("dense", optimizer=keras.optimizers.Adam(0.01, clipnorm=0.05))
    fit(ours, data)
    fit(keras_own, data)
    for a, b in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_model_has_the_optimizer_of_keras(tmp_path):
    model, data = compiled("dense", optimizer=make_optimizer("adamw", 0.01, clipnorm=0.05))
    fit(model, data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.AdamW
    assert loaded.optimizer.clipnorm == 0.05
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = make_optimizer("adam", 0.01, clipnorm=0.05)
    assert type(pickle.loads(pickle.dumps(fresh))) is keras.optimizers.Adam


def test_accumulated_infinity_is_reset(two_replicas):
    """Check that a gradient of -inf, clipped to a finite step, does not change later steps."""
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
            options = {"gradient_accumulation_steps": 2, "clipvalue": 0.5}
            model.compile(make_optimizer("sgd", 0.1, **options), "mse")
        model.set_weights([np.zeros((1, 1))])
        targets = np.array([[np.inf], [1.0], *[[0.0]] * 6])
        model.fit(np.ones((8, 1)), targets, batch_size=2, shuffle=False, verbose=0)
        weights.append(float(model.get_weights()[0].item()))
    # The weight rises by 0.1 * 0.5, then falls by 0.1 times the gradient 2 * 0.05.
    assert weights == [pytest.approx(0.04), pytest.approx(0.04)]


def test_accumulation_with_averages_is_refused_with_replicas(two_replicas):
    options = {"gradient_accumulation_steps": 2, "use_ema": True}
    with pytest.raises(ValueError, match=r"does not support `use_ema`"):
        trained(two_replicas, rounds=1, **options)
    trained(None, rounds=1, **options)


def test_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="Received: clip_scope='world'"):
        make_optimizer("sgd", 0.1, clip_scope="world")
