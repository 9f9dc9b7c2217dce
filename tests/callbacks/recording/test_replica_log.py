"""Norms under `tf.distribute`: those of each replica and those of the applied gradient."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor

pytestmark = pytest.mark.slow

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
}


@functools.cache
def trained(strategy, name="dense", optimizer="adam", monitored=True, run_eagerly=False, every=1):
    """Return history and weights of a training of two epochs (strategy None: no distribution)."""
    monitor = GradientMonitor(every_n_steps=every, verbose=0)
    with (strategy or tf.distribute.get_strategy()).scope():
        model, data = compiled(name, optimizer=OPTIMIZERS[optimizer](), run_eagerly=run_eagerly)
    fit(model, data, epochs=2, callbacks=[monitor] if monitored else [])
    return monitor.history if monitored else None, model.get_weights()


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("dense", "global_clipnorm"), ("embedding", "loss scale")],
)
def test_weights_are_bit_identical(two_replicas, name, optimizer):
    _, watched = trained(two_replicas, name, optimizer)
    _, plain = trained(two_replicas, name, optimizer, monitored=False)
    for one, other in zip(watched, plain, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("name", "optimizer"), [("dense", "adam"), ("embedding", "loss scale")])
def test_the_norm_is_that_of_one_device_on_the_global_batch(two_replicas, name, optimizer):
    replicated, _ = trained(two_replicas, name, optimizer)
    single, _ = trained(None, name, optimizer)
    np.testing.assert_allclose(replicated.norms, single.norms, rtol=1e-4)
    np.testing.assert_allclose(replicated.loss, single.loss, rtol=1e-5)
    assert replicated.updated.all()


def test_before_clipping_the_norm_is_that_of_one_device(two_replicas):
    """Compare the first step only: Keras clips each replica's part before the sum."""
    replicated, _ = trained(two_replicas, "dense", "global_clipnorm")
    single, _ = trained(None, "dense", "global_clipnorm")
    first = replicated.norms[0], single.norms[0]
    np.testing.assert_allclose(*first, rtol=1e-5)
    # The sum of two parts of norm 0.1 is shorter than 0.2 unless both have the same direction.
    assert (replicated.applied_global_norm <= 0.2 * (1 + 1e-5)).all()
    assert (replicated.applied_global_norm != 0.1).all()


def test_each_replica_has_the_norms_of_its_part(two_replicas):
    history, _ = trained(two_replicas, "dense", "adam")
    model, (x, y) = compiled("dense")
    expected = []
    for part in (slice(0, 4), slice(4, 8)):
        with tf.GradientTape() as tape:
            # A replica divides its loss by the size of the global batch, which is eight.
            loss = tf.reduce_sum(tf.square(model(x[part]) - y[part])) / 8
        gradients = tape.gradient(loss, model.trainable_variables)
        expected.append([np.linalg.norm(gradient) for gradient in gradients])
    np.testing.assert_allclose(history.replica_norms[0], expected, rtol=1e-5)


def test_four_replicas(four_replicas):
    watched, weights = trained(four_replicas)
    downsampled, others = trained(four_replicas, every=2)
    single, _ = trained(None, "dense", "adam")
    _, plain = trained(four_replicas, monitored=False)
    assert watched.replica_norms.shape == (6, 4, 4)
    np.testing.assert_allclose(watched.norms, single.norms, rtol=1e-4)
    assert downsampled.steps.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(downsampled.replica_norms, watched.replica_norms[::2])
    for one, other, last in zip(weights, others, plain, strict=True):
        np.testing.assert_array_equal([one, other], [last, last])


def test_run_eagerly(two_replicas):
    history, _ = trained(two_replicas, run_eagerly=True)
    single, _ = trained(None, "dense", "adam")
    np.testing.assert_allclose(history.norms, single.norms, rtol=1e-4)


def test_one_device_strategy():
    history, _ = trained(tf.distribute.OneDeviceStrategy("CPU:1"))
    single, _ = trained(None, "dense", "adam")
    np.testing.assert_allclose(history.norms, single.norms, rtol=1e-6)
    assert history.replica_norms.shape == (6, 0, 4)


def test_fit_inside_the_scope_of_a_strategy_that_the_model_is_not_made_for(two_replicas):
    model, data = compiled("dense")
    monitor = GradientMonitor()
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        fit(model, data, callbacks=[monitor])
    assert monitor.history.present.all()


def test_a_nan_on_one_replica_is_attributed_to_it(two_replicas):
    monitor = GradientMonitor(verbose=0)
    with two_replicas.scope():
        model, (x, y) = compiled("dense")
    x = x.copy()
    x[12] = np.nan  # in the second batch, the half of the second replica
    fit(model, (x, y), callbacks=[monitor])
    bad = np.isnan(monitor.history.replica_global_norms)
    assert bad[:2].tolist() == [[False, False], [False, True]]
    by_rule = {finding.rule: finding for finding in monitor.findings}
    assert by_rule["replica_disagreement"].step == 1
    assert by_rule["nonfinite"].step == 1


def test_an_overflow_on_a_replica_that_keras_does_not_check(two_replicas):
    """Check an overflow outside replica 0, which alone Keras tests: the step is applied."""
    with two_replicas.scope():
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=4.0)
        model, (x, y) = compiled("dense", optimizer=scaled)
    x = x.copy()
    x[4] = np.inf
    monitor = GradientMonitor(verbose=0)
    fit(model, (x[:8], y[:8]), callbacks=[monitor])
    assert not monitor.history.skipped[0]
    assert monitor.history.updated[0].all()
    assert (monitor.history.nonfinite[0] > 0).any()
