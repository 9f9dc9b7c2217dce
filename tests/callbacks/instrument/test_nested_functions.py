"""Custom train steps that call a `tf.function`, traced once and run in every step."""

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import AdaptiveClipping, GradientMonitor
from gradkeeper.callbacks.capsule import Capsule
from gradkeeper.callbacks.guard import NonFiniteGradientError
from gradkeeper.callbacks.non_finite_guard import NonFiniteGuard

pytestmark = pytest.mark.slow

BAD = 2  # index of the bad batch
WAYS: dict[str, dict[str, Any]] = {
    "graph": {"jit_compile": False},
    "several steps": {"jit_compile": False, "steps_per_execution": 3},
    "eager": {"run_eagerly": True},
}
CASES = [
    (("gradients",), "graph"),
    (("gradients", "update"), "several steps"),
    (("update",), "eager"),
    (("whole",), "eager"),
]


@pytest.fixture(scope="module")
def reference():
    """Return the history of a training without inner functions and without the bad batch."""
    monitor = GradientMonitor(verbose=0)
    fit(built((), WAYS["graph"]), data(without=BAD), monitor)
    return monitor.history


class Parted(keras.Model):
    """Model with Keras's train step split into parts, each of which can be a `tf.function`.

    Args:
        inside: names of the parts that are a `tf.function`.
    """

    def __init__(self, inside: tuple[str, ...], **options: Any) -> None:
        super().__init__()
        self._layers_in_turn = [
            keras.layers.Dense(5, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
        parts = {"gradients": self._gradients, "update": self._update, "whole": self._whole}
        self._parts = {
            name: tf.function(part, **options) if name in inside else part
            for name, part in parts.items()
        }

    def call(self, x, training=False):
        for layer in self._layers_in_turn:
            x = layer(x, training=training)
        return x

    def train_step(self, data):
        return {"loss": self._parts["whole"](*data)}

    def _whole(self, x, y):
        loss, gradients = self._parts["gradients"](x, y)
        self._parts["update"](gradients)
        return loss

    def _gradients(self, x, y):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        return loss, tape.gradient(loss, self.trainable_variables)

    def _update(self, gradients):
        self.optimizer.apply(gradients, self.trainable_variables)


def built(inside: tuple[str, ...], options: dict[str, Any], **of_functions: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = Parted(inside, **of_functions)
    model.compile(keras.optimizers.Adam(0.1), "mse", **options)
    model(np.zeros((1, 3), "float32"))
    return model


def data(*, bad: bool = False, without: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return four batches of eight and a smaller batch, for which the step is traced again."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(36, 3)), random.normal(size=(36, 1))
    if bad:
        x[8 * BAD, 0] = np.nan
    kept = [i for i in range(36) if without is None or i // 8 != without]
    return x[kept].astype("float32"), y[kept].astype("float32")


def fit(model: keras.Model, xy: Any, *callbacks: Any) -> list[np.ndarray]:
    model.fit(*xy, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))
    return [np.array(each) for each in (*model.variables, *model.optimizer.variables)]


def assert_equal(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("inside", "how"), CASES)
def test_a_bad_batch_leaves_no_trace(inside, how, reference, tmp_path):
    plain = fit(built(inside, WAYS[how]), data(without=BAD))
    monitor = GradientMonitor(verbose=0)
    guard = NonFiniteGuard("skip", capsule_dir=tmp_path, check_loss=True, verbose=0)
    model = built(inside, WAYS[how])
    assert_equal(fit(model, data(bad=True), monitor, guard), plain)
    assert [event.step for event in guard.events] == [BAD]
    assert np.isnan(guard.events[0].loss)
    assert np.isnan(monitor.history.norms[BAD]).all()
    healthy = np.delete(np.arange(5), BAD)
    np.testing.assert_allclose(monitor.history.norms[healthy], reference.norms, rtol=1e-4)
    np.testing.assert_allclose(monitor.history.loss[healthy], reference.loss, rtol=1e-4)
    kept = Capsule.read(guard.events[0].capsule).arrays[0]
    np.testing.assert_array_equal(kept[0], data(bad=True)[0][8 * BAD : 8 * BAD + 8])


def test_a_loss_from_a_function_is_checked_with_a_loss_scale():
    """Check that the loss distinguishes a bad step from an overflow of scaled gradients."""
    model = built(("gradients",), WAYS["graph"])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model.compile(optimizer, "mse", jit_compile=False)
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    fit(model, data(bad=True), guard)
    assert [event.step for event in guard.events] == [BAD]


def test_functions_that_xla_compiles(tmp_path):
    guard = NonFiniteGuard("skip", capsule_dir=tmp_path, verbose=0)
    weights = fit(built(("whole",), WAYS["graph"], jit_compile=True), data(bad=True), guard)
    assert guard.skipped == 1
    assert guard.events[0].capsule.exists()
    assert all(np.isfinite(each).all() for each in weights)


@pytest.mark.parametrize("policy", ["stop", "raise"])
def test_no_halt_outlives_the_training(policy):
    """Check that the gate traced into a function of an eager step no longer stops updates."""
    model = built(("whole",), WAYS["eager"])
    guard = NonFiniteGuard(policy, capsule_dir=None, verbose=0)
    with contextlib.suppress(NonFiniteGradientError):
        fit(model, data(bad=True), guard)
    before = [np.array(each) for each in model.trainable_variables]
    x, y = data()
    fit(model, (x[:8], y[:8]))
    for one, other in zip(before, model.trainable_variables, strict=True):
        assert (one != np.array(other)).any()


def test_clipping_in_a_function_needs_no_conversion(caplog):
    """Check that AutoGraph reports no code that it cannot convert."""
    fit(built(("whole",), WAYS["graph"]), data(), AdaptiveClipping("zclip"))
    assert "AutoGraph" not in caplog.text


def test_functions_that_were_traced_before_are_reported(capsys):
    model = built(("whole",), WAYS["eager"])
    fit(model, data())
    capsys.readouterr()
    fit(model, data(), NonFiniteGuard(capsule_dir=None), AdaptiveClipping(), GradientMonitor())
    printed = capsys.readouterr().out
    assert printed.count("sees no gradients") == 3
    assert "NonFiniteGuard sees no gradients and skips" in printed
    assert "AdaptiveClipping sees no gradients and clips nothing" in printed
    assert "GradientMonitor sees no gradients and records nothing" in printed
