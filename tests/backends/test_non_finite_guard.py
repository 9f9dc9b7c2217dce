"""`NonFiniteGuard` on JAX and torch: replicas, several optimizers, capsules.

`tests/callbacks/test_non_finite_guard.py` has the tests that do not depend on the backend.
"""

import importlib

import keras
import numpy as np
import pytest
from guarded import BATCH, assert_alike, built, data, fit, poisoned, quiet
from own_steps import GAN

from gradkeeper.callbacks import Capsule, GradientMonitor, NonFiniteGuard
from gradkeeper.callbacks.capsule.model import batch_of, model_of, state_of
from gradkeeper.callbacks.guard.array_transform import ArraySkipTransform


@pytest.fixture(autouse=True)
def _capsules_in_a_folder_of_the_tests_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_capsule_has_the_batch_and_the_state_before_the_step(steps_per_execution):
    xy = poisoned(4, 6)
    model, until = (built("sgd", steps_per_execution=n) for n in (steps_per_execution, 1))
    guard = NonFiniteGuard("skip", verbose=0)
    fit(model, xy, guard)
    fit(until, [each[: 4 * BATCH] for each in xy])
    first, *others = [Capsule.read(event.capsule) for event in guard.events if event.capsule]
    is_one = steps_per_execution == 1 or keras.backend.backend() == "torch"
    assert len(others) == (1 if is_one else 0)  # of an execution, the first
    x, y, *_ = batch_of(first, 0)
    np.testing.assert_array_equal(x, xy[0][4 * BATCH : 5 * BATCH])
    np.testing.assert_array_equal(y, xy[1][4 * BATCH : 5 * BATCH])
    backend = keras.backend.backend()
    assert first.facts["versions"][backend] == importlib.import_module(backend).__version__
    states = state_of(model_of(first)).values(), state_of(until).values()
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stop_does_not_wait_for_the_device(monkeypatch):
    """Check that the host waits for no step, and releases the batches of finished steps."""
    waits, held, read = [], [], ArraySkipTransform._read

    def counted(transform, **options):
        waits.append(options.get("waits", True))
        read(transform, **options)
        held.append(len(transform._held))

    class Finish(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # the step has finished

    monkeypatch.setattr(ArraySkipTransform, "_read", counted)
    guard = NonFiniteGuard("stop", verbose=0)
    fit(built("sgd"), data(), guard, Finish(), epochs=2)
    assert sum(waits) <= 6  # at the beginning, and at the end of each epoch
    assert len(held) >= 16
    assert max(held) == 0
    assert guard.events == []


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is for JAX")
@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_data_parallel(policy):
    devices = keras.distribution.list_devices("cpu")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        left_out, guarded = built("adam"), built("adam")
        without = (3,) if policy == "skip" else tuple(range(3, 8))
        fit(left_out, data(without=without), quiet())
        guard, monitor = quiet(policy), GradientMonitor(verbose=0)
        fit(guarded, poisoned(3, row=BATCH - 1), monitor, guard)
    finally:
        keras.distribution.set_distribution(None)
    assert_alike(guarded, left_out)
    assert [event.step for event in guard.events] == [3]
    assert np.flatnonzero(monitor.history.skipped)[0] == 3


def test_several_optimizers_in_a_step():
    def trained(xy):
        keras.utils.set_random_seed(0)
        model = GAN()
        model.build((None, 4))
        model.compile()
        guard = quiet()
        fit(model, (xy[0][:, :4], xy[1]), guard)
        return guard, [np.array(each) for each in model.trainable_variables]

    guard, guarded = trained(poisoned(3))
    assert [(event.step, event.layers) for event in guard.events] == [(3, ("critic",))]
    for one, other in zip(guarded, trained(data(without=(3,)))[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason='on JAX, "warn" writes no capsule')
def test_a_capsule_of_an_applied_step_has_each_optimizer_before_the_step():
    model = GAN()
    model.build((None, 4))
    model.compile()
    x, y = poisoned(3)
    guard = NonFiniteGuard("warn", verbose=0)
    fit(model, (x[:, :4], y), guard)
    capsule = Capsule.read(guard.events[0].capsule)
    counts = [int(value) for name, value in capsule.state.items() if "iteration" in name]
    assert (capsule.step, counts) == (3, [3, 3])


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="JAX needs a built optimizer")
def test_the_first_step_is_bad_and_builds_an_optimizer():
    def trained(xy):
        keras.utils.set_random_seed(0)
        model = GAN()
        model.build((None, 4))
        model.compile(builds=False)
        model.of_critic = keras.optimizers.Adam(0.1)
        fit(model, (xy[0][:, :4], xy[1]), quiet())
        variables = [*model.trainable_variables, *model.of_critic.variables]
        return [keras.ops.convert_to_numpy(each) for each in variables]

    for one, other in zip(trained(poisoned(0)), trained(data(without=(0,))), strict=True):
        np.testing.assert_array_equal(one, other)


class Total(keras.Layer):
    """Layer with a variable that Keras does not list."""

    def build(self, shape):
        vars(self)["total"] = keras.Variable(0.0, trainable=False)

    def call(self, x):
        self.total.assign(self.total + keras.ops.sum(keras.ops.stop_gradient(x)))
        return x


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras on JAX keeps no such value")
def test_variables_that_keras_does_not_list():
    def total(xy):
        keras.utils.set_random_seed(0)
        layer = Total()
        model = keras.Sequential([keras.Input((6,)), layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        fit(model, xy, quiet())
        return float(layer.total)

    assert total(poisoned(5)) == total(data(without=(5,))) != 0
