"""Scaled, accumulated, missing and frozen gradients, and gradients of other precisions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard

pytestmark = pytest.mark.eager


def monitored(model, data, **options):
    monitor = GradientMonitor(verbose=0)
    fit(model, data, callbacks=[monitor], **options)
    return monitor.history


@pytest.fixture
def mixed_float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
def test_mixed_float16_by_its_policy(mixed_float16):
    model, (x, y) = compiled("dense")
    data = 0.5 * x, 0.5 * y  # prevents gradient overflow at the initial scale
    model.compile("sgd", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = monitored(model, data)
    keras.mixed_precision.set_global_policy("float32")
    plain, _ = compiled("dense")
    plain.compile("sgd", "mse")
    expected = monitored(plain, data)
    np.testing.assert_allclose(history.norms, expected.norms, rtol=2e-2)
    assert history.loss_scale.tolist() == [2.0**15] * 3
    assert np.isnan(expected.loss_scale).all()


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"jit_compile": False}, {"run_eagerly": True}], ids=str)
def test_a_step_skipped_for_overflow_is_skipped_with_its_scale(how):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2e38)
    model, (x, y) = compiled("dense", optimizer=optimizer, **how)
    history = monitored(model, (x, 1e3 * y))
    assert history.skipped[0]
    assert history.loss_scale[0] == pytest.approx(2e38)
    assert history.loss_scale[1] == pytest.approx(1e38)
    assert not history.updated[0].any()
    assert not history.accumulated.any()


def test_a_static_loss_scale():
    scaled = keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)
    history = monitored(*compiled("dense", optimizer=scaled))
    expected = monitored(*compiled("dense"))
    np.testing.assert_allclose(history.norms, expected.norms, rtol=1e-6)
    np.testing.assert_allclose(history.applied_norms, expected.norms, rtol=1e-6)
    assert history.loss_scale[0] == 1024
    assert not history.skipped.any()


def accumulated_gradients(count):
    """Return the norms of the mean gradients over the first batches, at the initial weights."""
    model, (x, y) = compiled("dense")
    total = [0.0] * len(model.trainable_variables)
    for start in range(0, 8 * count, 8):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x[start : start + 8]) - y[start : start + 8]))
        parts = tape.gradient(loss, model.trainable_variables)
        total = [a + b / count for a, b in zip(total, parts, strict=True)]
    return [np.linalg.norm(gradient) for gradient in total]


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"jit_compile": False}, {"run_eagerly": True}], ids=str)
def test_micro_batches_and_updates_of_accumulation(how):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model, data = compiled("dense", optimizer=optimizer, **how)
    history = monitored(model, data)
    assert history.accumulated.tolist() == [True, True, False]
    np.testing.assert_allclose(history.applied_norms[2], accumulated_gradients(3), rtol=1e-5)
    assert np.isnan(history.applied_norms[:2]).all()
    np.testing.assert_allclose(history.clip_coefficient[2], 1.0, rtol=1e-6)
    assert history.clip_fraction == 0
    assert monitored(model, [each[:16] for each in data]).accumulated.all()


def test_the_norm_after_clipping_where_a_guard_refuses_the_last_eager_step():
    model, (x, y) = compiled("dense", optimizer=keras.optimizers.SGD(0.1, clipnorm=0.1))
    x = x.copy()
    x[16] = np.nan
    monitor, guard = GradientMonitor(verbose=0), NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    fit(model, (x, y), callbacks=[monitor, guard])
    assert monitor.history.skipped.tolist() == [False, False, True]
    assert (monitor.history.applied_norms[:2] <= 0.1001).all()


def test_clipping_of_an_accumulated_gradient():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3, global_clipnorm=0.01)
    history = monitored(*compiled("dense", optimizer=optimizer))
    total = np.linalg.norm(accumulated_gradients(3))
    np.testing.assert_allclose(history.clip_coefficient[2], 0.01 / total, rtol=1e-5)
    np.testing.assert_allclose(history.applied_global_norm[2], 0.01, rtol=1e-5)
    assert history.clip_fraction == 1


def test_a_layer_frozen_between_two_fits():
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    fit(model, data, callbacks=[monitor])
    model.layers[0].trainable = True
    model.compile("sgd", "mse")
    fit(model, data, callbacks=[monitor])
    there = monitor.history.present[:, :2].all(axis=1)
    assert there.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert monitor.history.present[:, 2:].all()
    assert not monitor.findings


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_precisions(dtype):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh", dtype=dtype), keras.layers.Dense(1, dtype=dtype)]
    model = keras.Sequential([keras.Input((6,), dtype=dtype), *layers])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    x, y = np.ones((8, 6)), 1e3 * np.ones((8, 1))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(tf.constant(x, dtype)) - tf.constant(y, dtype)))
    gradients = tape.gradient(loss, model.trainable_variables)
    expected = [np.linalg.norm(np.float64(gradient)) for gradient in gradients]
    history = monitored(model, (x, y))
    # Keras computes the loss in float32 for every dtype of the layers.
    tolerance = 1e-6 if dtype == "float64" else 2e-2
    np.testing.assert_allclose(history.norms[0], expected, rtol=tolerance)


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_norms_neither_overflow_nor_underflow(scale):
    class Scaled(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return scale * tf.reduce_mean(y_pred, axis=-1)

    model, data = compiled("dense", optimizer=keras.optimizers.SGD(0.0))
    model.compile(keras.optimizers.SGD(0.0), Scaled())
    norm = monitored(model, data).global_norm[0]
    plain, _ = compiled("dense")
    scale = 1.0
    plain.compile(keras.optimizers.SGD(0.0), Scaled())
    expected = monitored(plain, data).global_norm[0]
    factor = norm / expected
    assert factor == pytest.approx(1e20, rel=1e-5) or factor == pytest.approx(1e-25, rel=1e-5)


def test_largest_magnitude_and_non_finite_elements():
    model, (x, y) = compiled("dense")
    x = x.copy()
    x[8, 2] = np.nan
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x[:8]) - y[:8]))
    gradients = tape.gradient(loss, model.trainable_variables)
    history = monitored(model, (x, y))
    expected = [np.abs(gradient).max() for gradient in gradients]
    np.testing.assert_allclose(history.max_abs[0], expected, rtol=1e-5)
    assert history.nonfinite[0].sum() == 0
    sizes = [int(tf.size(variable)) for variable in model.trainable_variables]
    assert history.nonfinite[2].tolist() == sizes
    assert np.isnan(history.max_abs[2]).all()


def test_the_clipped_norm_of_an_embedding_with_repeated_ids():
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1e-3)
    history = monitored(*compiled("embedding", optimizer=optimizer))
    # Keras clips by the norm of the separate rows; the norm of the summed rows can be larger.
    np.testing.assert_allclose(history.applied_global_norm, 1e-3, rtol=0.5)


class Nested(keras.Model):
    """Subclassed model that contains a model and a list of layers."""

    def __init__(self):
        super().__init__()
        cell = keras.layers.LSTM(3, name="lstm")
        inner = [keras.Input((5, 2)), keras.layers.Bidirectional(cell, name="bidirectional")]
        self.encoder = keras.Sequential(inner, name="encoder")
        self.heads = [keras.layers.Dense(2, name="head"), keras.layers.Dense(1, name="head")]

    def call(self, x):
        for layer in (self.encoder, *self.heads):
            x = layer(x)
        return x


def test_names_tell_where_a_variable_is():
    model = Nested()
    model.compile("sgd", "mse")
    history = monitored(model, (np.ones((8, 5, 2)), np.ones((8, 1))))
    names = history.variables
    assert "encoder/bidirectional/forward_lstm/lstm_cell/recurrent_kernel" in names
    assert "encoder/bidirectional/backward_lstm/lstm_cell/kernel" in names
    assert [name for name in names if "head" in name] == [
        "head/kernel", "head/bias", "head/kernel_1", "head/bias_1",
    ]  # fmt: skip
    assert len(set(names)) == len(model.trainable_variables)


def test_a_shared_layer_has_one_name():
    shared = keras.layers.Dense(4, name="shared")
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], keras.layers.Dense(1)(shared(first) + shared(second)))
    model.compile("sgd", "mse")
    history = monitored(model, ([np.ones((8, 4))] * 2, np.ones((8, 1))))
    assert history.variables[:2] == ["shared/kernel", "shared/bias"]
    assert len(history.variables) == 4


@pytest.mark.slow
def test_only_selected_layers():
    model, data = compiled("recurrent")
    monitor = GradientMonitor(layers="*lstm*")
    fit(model, data, callbacks=[monitor])
    assert len(monitor.history.variables) == 3
    assert all("lstm" in name for name in monitor.history.variables)
    figure = monitor.plot(layers=["lstm*"])
    assert len(figure.axes[1].get_yticklabels()) == 1
    with pytest.raises(
        ValueError, match=r"No layer or variable matches .*gru.*The layers are: .*lstm"
    ):
        fit(*compiled("recurrent"), callbacks=[GradientMonitor(layers="*gru*")])


def test_loss_and_learning_rate_of_each_step():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model, (x, y) = compiled("dense", optimizer=keras.optimizers.SGD(schedule))
    first = float(tf.reduce_mean(tf.square(model(x[:8]) - y[:8])))
    history = monitored(model, (x, y))
    np.testing.assert_allclose(history.learning_rate, [0.1, 0.05, 0.025], rtol=1e-6)
    np.testing.assert_allclose(history.loss[0], first, rtol=1e-6)


def test_update_and_weight_norms_on_request():
    model, data = compiled("dense")
    before = model.get_weights()
    monitor = GradientMonitor(watch=("gradients", "updates", "weights"))
    fit(model, (data[0][:8], data[1][:8]), callbacks=[monitor])
    moved = [np.linalg.norm(a - b) for a, b in zip(model.get_weights(), before, strict=True)]
    norms = [np.linalg.norm(weight) for weight in before]
    np.testing.assert_allclose(monitor.history.update_norms[0], moved, rtol=1e-5)
    np.testing.assert_allclose(monitor.history.weight_norms[0], norms, rtol=1e-5)
    assert np.isnan(monitored(*compiled("dense")).update_norms).all()


@pytest.mark.slow
def test_watching_weights_does_not_change_them():
    plain, data = compiled("embedding", optimizer=keras.optimizers.Adam(0.01))
    fit(plain, data, epochs=2)
    model, _ = compiled("embedding", optimizer=keras.optimizers.Adam(0.01))
    fit(model, data, epochs=2, callbacks=[GradientMonitor(watch=["updates", "weights"])])
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("several", [True, False])
def test_a_compute_loss_that_returns_several_losses_or_none(several):
    class Own(keras.Model):
        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            self.total = {"a": tf.reduce_mean(tf.square(y - y_pred)), "b": tf.ones([2])}
            return self.total if several else None

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                self.compute_loss(x, y, self(x))
                loss = self.total["a"]
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    inputs = keras.Input((6,))
    model = Own(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", run_eagerly=True)
    x, y = np.ones((8, 6), "float32"), np.ones((8, 1), "float32")
    expected = 1 + float(tf.reduce_mean(tf.square(y - model(x))))
    loss = monitored(model, (x, y)).loss
    if several:
        assert loss[0] == pytest.approx(expected, rel=1e-6)
    else:
        assert np.isnan(loss[0])


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_the_loss_is_known_wherever_it_has_to_be_written(how):
    """Check the loss in the gradients' row, and in a separate row where that row cannot hold it."""

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x), training=True)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            self.compute_loss(x, y, self(x), training=True)  # the monitor records the last loss
            return {"loss": loss}

    class Wide(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return tf.cast(super().compute_loss(*args, **kwargs), tf.float64) + 1e300

    x, y = np.ones((8, 6), "float32"), np.ones((8, 1), "float32")
    losses = {}
    for kind in (keras.Model, Own, Wide):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        model = kind(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", "mse", **how)
        losses[kind] = monitored(
            model, (np.tile(x, (3, 1)), np.tile(y, (3, 1))), shuffle=False
        ).loss
    np.testing.assert_allclose(losses[Own][:-1], losses[keras.Model][1:], rtol=1e-5)
    np.testing.assert_allclose(losses[Wide], 1e300, rtol=1e-12)
