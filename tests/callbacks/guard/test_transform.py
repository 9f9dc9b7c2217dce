"""Guard in TensorFlow's train step: several optimizers, replicas, and what the host reads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from guarded import BATCH, WAYS, assert_alike, built, data, fit, poisoned, quiet, state

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.guard.transform import SkipTransform


@pytest.fixture(autouse=True)
def capsules_in_a_folder_of_the_tests_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "is_told"), [("graph", True), ("xla", False)])
def test_the_host_reads_the_status_only_if_needed(how, is_told, monkeypatch):
    """Check how often the host reads the status, the slowest operation between steps."""
    seen, status = [], SkipTransform.status
    monkeypatch.setattr(SkipTransform, "status", lambda each: seen.append(1) or status(each))
    model, guard = built(**WAYS[how]), quiet(capsule_dir=None)
    fit(model, data(), guard)
    monkeypatch.undo()
    assert (len(seen) < 5) if is_told else (len(seen) >= 8)
    fit(model, poisoned(3, 6), guard)
    assert [event.step for event in guard.events] == [11, 14]


@pytest.mark.slow
def test_steps_are_counted_on_where_the_model_is_compiled_anew():
    class Anew(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.compile("sgd", "mse", jit_compile=False)
                self.model.make_train_function()

    guard = quiet()
    fit(built("sgd", jit_compile=False), poisoned(1, 5), guard, Anew())
    assert [event.step for event in guard.events] == [1, 5]


class Two(keras.Model):
    """Model with two optimizers in a step; the NaN reaches the second one."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(1, name="first")
        self.second = keras.layers.Dense(1, name="second")
        self.optimizers = [keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.1)]

    def call(self, x):
        return self.first(x[:, :2]) + self.second(x[:, 2:])

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape(persistent=True) as tape:
            one = tf.reduce_mean(tf.square(self.first(x[:, :2]) - y))
            two = tf.reduce_mean(tf.square(self.second(x[:, 2:]) - y))
        for optimizer, layer, loss in zip(
            self.optimizers, (self.first, self.second), (one, two), strict=True
        ):
            variables = layer.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"one": one}


@pytest.mark.slow
@pytest.mark.parametrize(("run_eagerly", "bad"), [(False, 0), (True, 3)])
def test_several_optimizers_in_a_step(run_eagerly, bad):
    """Include a bad first step, in which the optimizers create their variables."""

    def trained(xy):
        keras.utils.set_random_seed(0)
        model = Two()
        model.compile(run_eagerly=run_eagerly)
        model(xy[0][:1])
        guard = quiet()
        fit(model, xy, guard)
        optimizers = [v for each in model.optimizers for v in each.variables]
        return guard, [keras.ops.convert_to_numpy(v) for v in [*model.variables, *optimizers]]

    guard, guarded = trained(poisoned(bad))
    assert [event.step for event in guard.events] == [bad]
    assert guard.events[0].layers == ("second",)
    for a, b in zip(guarded, trained(data(without=(bad,)))[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_one_bad_replica_is_enough(two_replicas):
    def replicated():
        with two_replicas.scope():
            return built(jit_compile=False)

    bad = (1, 3, 4, 6)
    left_out, guarded = replicated(), replicated()
    fit(left_out, data(without=bad))
    guard, monitor = quiet(), GradientMonitor(verbose=0)
    fit(guarded, poisoned(*bad, row=BATCH - 1), monitor, guard)
    assert_alike(guarded, left_out)
    assert [(event.step, event.replicas) for event in guard.events] == [(b, (1,)) for b in bad]
    assert "on replica 1 of 2" in str(guard.events[0])
    assert np.flatnonzero(monitor.history.skipped).tolist() == list(bad)
    assert np.isnan(monitor.history.norms[3]).any()
    assert np.isnan(monitor.history.replica_global_norms[3]).tolist() == [False, True]


@pytest.mark.slow
def test_replicas_with_a_loss_scale(two_replicas):
    """Check the case in which Keras tests the gradients of the first replica only."""

    def replicated(*callbacks):
        with two_replicas.scope():
            optimizer = keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.1), initial_scale=1024.0
            )
            model = built(optimizer, jit_compile=False)
        fit(model, poisoned(3, row=BATCH - 1, value=1e38), *callbacks)
        return model

    model = replicated(quiet())
    assert all(np.isfinite(each).all() for each in state(model))
