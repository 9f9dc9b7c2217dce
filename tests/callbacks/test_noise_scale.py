"""Gradient noise scale of linear regression, whose value is known."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from histories import window

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.noise_scale import NoiseScale

INPUTS, NOISE, BATCH = 8, 1.5, 32


def part_gradients(seed, steps, parts):
    """Return mean gradients of parts of each batch, [steps, parts, inputs], at distance 1 from the
    optimum: x ~ N(0, 1), y = noise, loss = (w x - y)², |w| = 1.
    """
    random = np.random.default_rng(seed)
    weights = np.full(INPUTS, INPUTS**-0.5)
    x = random.normal(size=(steps, parts, BATCH // parts, INPUTS))
    errors = x @ weights - NOISE * random.normal(size=x.shape[:-1])
    return np.mean(2 * errors[..., np.newaxis] * x, axis=2)


# The mean of the gradient is 2 w. The gradient of an example is 2 (w x - y) x, whose mean square is
# 4 ((inputs + 2) |w|² + inputs noise²).
SQUARE, TRACE = 4.0, 4 * (INPUTS + 1 + INPUTS * NOISE**2)


def of_replicas(seed, replicas=2):
    parts = part_gradients(seed, 200, replicas)
    norms = np.linalg.norm(parts, axis=2)[..., np.newaxis] / replicas
    total = np.linalg.norm(parts.mean(axis=1), axis=1)[:, np.newaxis]
    return window(total, variables=["dense/kernel"], replica_norms=norms)


def of_micro_batches(seed, count=4):
    """Return a window in which each batch is a micro-batch, and every fourth step updates."""
    parts = part_gradients(seed, 800, 1)[:, 0].reshape(200, count, INPUTS)
    norms = np.linalg.norm(parts, axis=2).reshape(-1, 1)
    unclipped = np.full(len(norms), np.nan)
    unclipped[count - 1 :: count] = np.linalg.norm(parts.mean(axis=1), axis=1)
    made = window(norms, variables=["dense/kernel"], scalars={"unclipped_norm": unclipped})
    return dataclasses.replace(made, updated=np.isfinite(unclipped)[:, np.newaxis])


@pytest.mark.parametrize("made", [of_replicas, of_micro_batches])
def test_the_noise_scale_of_linear_regression(made):
    found = [made(seed).noise_scale(BATCH) for seed in range(20)]
    assert np.mean([each.value for each in found]) == pytest.approx(TRACE / SQUARE, rel=0.1)
    assert np.mean([each.squared_norm for each in found]) == pytest.approx(SQUARE, rel=0.05)
    assert np.mean([each.covariance_trace for each in found]) == pytest.approx(TRACE, rel=0.05)
    assert all(len(each) == 200 for each in found)
    in_batches = made(0).noise_scale(1).value
    assert in_batches == pytest.approx(found[0].value / BATCH)


def test_four_replicas_estimate_the_same():
    found = np.mean([of_replicas(seed, replicas=4).noise_scale(BATCH).value for seed in range(20)])
    assert found == pytest.approx(TRACE / SQUARE, rel=0.1)


def test_incomplete_updates_and_steps_that_are_not_finite_are_left_out():
    micro = of_micro_batches(0)
    steps = np.delete(np.arange(800), 401)
    assert 403 not in micro[steps].noise_scale(BATCH).steps
    assert len(micro[steps].noise_scale(BATCH)) == 199
    assert len(micro[2:].noise_scale(BATCH)) == 199
    replicas = of_replicas(0)
    replicas.replica_norms[7, 1] = np.inf
    assert 7 not in replicas.noise_scale(BATCH).steps


def test_noise_that_hides_the_gradient():
    estimates = np.array([1.0, -3.0]), np.array([5.0, 6.0])
    assert NoiseScale(np.arange(2), *estimates).value == np.inf


def test_windows_without_two_batch_sizes_are_refused():
    with pytest.raises(ValueError, match=r"several replicas.*Received: 200 steps of 1 replica"):
        of_micro_batches(0)[::4].noise_scale(BATCH)
    with pytest.raises(ValueError, match=r"`batch_size` must be .* Received: batch_size=0"):
        of_replicas(0).noise_scale(0)


def test_replicas_of_a_custom_loop(two_replicas, tmp_path):
    parts = part_gradients(0, 3, 2)
    with two_replicas.scope():
        weights = keras.Variable(tf.zeros(INPUTS), name="w")
        optimizer = keras.optimizers.SGD(0.0)
        optimizer.build([weights])
    monitor = GradientMonitor(verbose=0)
    with monitor.watch(optimizer, [weights]):
        for part in tf.constant(parts / 2, tf.float32):

            def apply(part=part):
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                optimizer.apply([part[replica]], [weights])

            two_replicas.run(apply)
    found = monitor.history.noise_scale(BATCH)
    small = np.mean(np.sum(parts**2, axis=2), axis=1)
    large = np.sum(parts.mean(axis=1) ** 2, axis=1)
    np.testing.assert_allclose(found.squared_norm, 2 * large - small, rtol=1e-4)
    np.testing.assert_allclose(found.covariance_trace, BATCH * (small - large), rtol=1e-4)
    page = monitor.report(tmp_path / "report.html").read_text()
    assert f"{found.value / BATCH:.3g} batches" in page


def test_micro_batches_of_a_custom_loop():
    parts = part_gradients(0, 6, 1)[:, 0]
    weights = keras.Variable(tf.zeros(INPUTS), name="w")
    optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=3)
    optimizer.build([weights])
    monitor = GradientMonitor(verbose=0)
    with monitor.watch(optimizer, [weights]):
        for part in parts:
            optimizer.apply([tf.constant(part, tf.float32)], [weights])
    found = monitor.history.noise_scale(BATCH)
    groups = parts.reshape(2, 3, INPUTS)
    small = np.mean(np.sum(groups**2, axis=2), axis=1)
    large = np.sum(groups.mean(axis=1) ** 2, axis=1)
    assert found.steps.tolist() == [2, 5]
    np.testing.assert_allclose(found.squared_norm, (3 * large - small) / 2, rtol=1e-4)
    np.testing.assert_allclose(found.covariance_trace, 1.5 * BATCH * (small - large), rtol=1e-4)
