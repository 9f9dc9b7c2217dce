"""Monitor and guard with optimizers, layers and callbacks of newer Keras versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard

pytestmark = [pytest.mark.slow, pytest.mark.unbuilt_optimizer]

X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = X[:, :1] - X[:, 1:2]


def needs(place, name):
    """Return the attribute of a Keras module; skip the test where the attribute is missing."""
    if not hasattr(place, name):
        pytest.skip(f"Keras {keras.__version__} has no {place.__name__}.{name}")
    return getattr(place, name)


def built(optimizer="sgd", change=None):
    """Return a model of three layers; `change` can replace the second layer."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(n, a) for n, a in ((5, "tanh"), (4, "tanh"), (1, None))]
    model = keras.Sequential([keras.Input((6,)), *layers])
    if change is not None:
        change(model.layers[1])
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def several_optimizers():
    kind = needs(keras.optimizers, "MultiOptimizer")
    adam, sgd = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)
    return built(kind(lambda variable: adam if len(variable.shape) == 2 else sgd))


def lora():
    needs(keras.layers.Dense, "enable_lora")
    return built("adam", lambda layer: layer.enable_lora(2))


def quantized():
    needs(keras.layers.Dense, "quantize")
    return built("adam", lambda layer: layer.quantize("int8"))


def remat():
    scope = needs(keras, "RematScope")
    # TensorFlow rejects keyword arguments of a model for rematerialised whole layers.
    with scope(mode="activations"):
        return built("adam")


MODELS = {
    "MultiOptimizer": several_optimizers,
    "ScheduleFreeAdamW": lambda: built(needs(keras.optimizers, "ScheduleFreeAdamW")(0.01)),
    "Muon": lambda: built(needs(keras.optimizers, "Muon")(0.01)),
    "a LoRA layer": lora,
    "a quantized layer": quantized,
    "RematScope": remat,
}


def fit(model, *callbacks):
    model.fit(X, Y, 8, epochs=2, shuffle=False, verbose=0, callbacks=list(callbacks))


def state(model):
    variables = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
    return [keras.ops.convert_to_numpy(each) for each in variables.values()]


def first_norms(model):
    """Return the norms of the first batch's gradients, computed with a separate tape."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(X[:8], Y[:8], model(X[:8], training=True))
    gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
    return [np.linalg.norm(gradient) for gradient in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_training_is_the_same_and_a_step_that_is_not_finite_leaves_no_trace(kind):
    plain, watched = MODELS[kind](), MODELS[kind]()
    expected = first_norms(MODELS[kind]())
    fit(plain)
    monitor = GradientMonitor(verbose=0)
    guard = NonFiniteGuard(verbose=0, capsule_dir=None)
    fit(watched, monitor, guard)
    for one, other in zip(state(plain), state(watched), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not guard.events
    assert not monitor.findings
    assert monitor.history.norms.shape == (6, len(watched.trainable_variables))
    np.testing.assert_allclose(monitor.history.norms[0], expected, rtol=1e-5)
    bad = np.full((8, 6), np.nan, "float32")
    watched.fit(bad, Y[:8], 8, verbose=0, callbacks=[guard])
    assert [event.step for event in guard.events] == [6]
    for one, other in zip(state(plain), state(watched), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_checkpoints_of_orbax_are_those_of_the_plain_training(tmp_path):
    kind = needs(keras.callbacks, "OrbaxCheckpoint")
    pytest.importorskip("orbax.checkpoint", reason="OrbaxCheckpoint needs orbax-checkpoint")
    plain, watched = built("adam"), built("adam")
    fit(plain, kind(str(tmp_path / "plain")))
    guard = NonFiniteGuard(verbose=0, capsule_dir=None)
    fit(watched, GradientMonitor(verbose=0), guard, kind(str(tmp_path / "watched")))
    assert not guard.events
    for name, model in {"plain": plain, "watched": watched}.items():
        loaded = keras.models.clone_model(model)  # weights are found by layer name
        loaded.load_weights(str(tmp_path / name))
        for one, other in zip(plain.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
