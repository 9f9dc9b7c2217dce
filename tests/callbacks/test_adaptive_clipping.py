"""Adaptive clipping, compared with a NumPy implementation at every step."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from models import compiled, fit

from gradkeeper.callbacks import AdaptiveClipping, GradientMonitor, NonFiniteGuard

pytestmark = pytest.mark.slow

STEPS = 60


def autoclip(norms, percentile=10.0, window=1000):
    for step, norm in enumerate(norms):
        limit = np.percentile(norms[max(0, step + 1 - window) : step + 1], percentile)
        yield min(norm, limit)


def percentile(norms, percentile=95.0, window=1000, warmup=25):
    for step, norm in enumerate(norms):
        before = norms[max(0, step - window) : step]
        yield norm if step < warmup else min(norm, np.percentile(before, percentile))


def zclip(norms, z_threshold=2.5, alpha=0.97, warmup=25):
    mean = np.mean(norms[:warmup])
    variance = np.var(norms[:warmup])
    for step, norm in enumerate(norms):
        kept = norm
        if step >= warmup:
            z = (norm - mean) / (variance**0.5 + 1e-6)
            if z > z_threshold:
                kept = mean + z_threshold**2 * variance**0.5 / z
            mean = alpha * mean + (1 - alpha) * kept
            variance = alpha * variance + (1 - alpha) * (kept - mean) ** 2
        yield kept


TWINS = {"autoclip": autoclip, "percentile": percentile, "zclip": zclip}
WAYS = {
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "several steps": {"jit_compile": False, "steps_per_execution": 4},
}


def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Return one example per step, with outliers in two of the targets."""
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS, 6)).astype("float32")
    y = random.normal(size=(STEPS, 1)).astype("float32")
    y[[30, 45]] *= 100
    return x, y


def recorded(callback, optimizer=None, data=None, **how):
    model, _ = compiled("dense", optimizer=optimizer or keras.optimizers.SGD(1e-3), **how)
    monitor = GradientMonitor(verbose=0)
    fit(model, data or noisy(), batch_size=1, callbacks=[callback, monitor])
    return monitor.history


@pytest.mark.parametrize(
    ("method", "how"),
    [("autoclip", "eager"), ("percentile", "several steps"), ("zclip", "xla")],
)
def test_equal_to_the_same_in_numpy(method, how):
    history = recorded(AdaptiveClipping(method), **WAYS[how])
    assert len(history) == STEPS
    expected = list(TWINS[method](history.global_norm))
    np.testing.assert_allclose(history.applied_global_norm, expected, rtol=1e-4)
    assert history.clipped.sum() > 0


def test_options_of_the_method():
    history = recorded(AdaptiveClipping("autoclip", percentile=50, window=7))
    expected = list(autoclip(history.global_norm, percentile=50, window=7))
    np.testing.assert_allclose(history.applied_global_norm, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "run_eagerly"), [("dense", True), ("convolutional", True), ("embedding", False)]
)
def test_agc_is_the_papers_equation_3(name, run_eagerly):
    sgd = keras.optimizers.SGD(1.0)
    model, (x, y) = compiled(name, optimizer=sgd, run_eagerly=run_eagerly)
    before = [keras.ops.convert_to_numpy(each) for each in model.trainable_variables]

    def loss(_):
        return keras.ops.mean(keras.ops.square(keras.ops.subtract(model(x, training=True), y)))

    _, wanted = gradients(loss, model, [])
    fit(model, (x, y), batch_size=len(x), callbacks=[AdaptiveClipping("agc", clipping=0.05)])
    for weight, gradient, variable in zip(before, wanted, model.trainable_variables, strict=True):
        axes = tuple(range(max(weight.ndim - 1, 1)))
        most = 0.05 * np.maximum(np.linalg.norm(weight.reshape(-1, weight.shape[-1]), axis=0), 1e-3)
        if weight.ndim == 1:
            most = 0.05 * max(np.linalg.norm(weight), 1e-3)
        norms = np.sqrt(np.sum(np.square(gradient), axis=axes))
        applied = gradient * np.minimum(1.0, most / np.maximum(norms, 1e-6))
        moved = weight - keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(moved, applied, atol=1e-5)


@pytest.mark.parametrize(("accumulates", "is_scaled"), [(2, False), (None, True), (2, True)])
def test_accumulated_and_scaled_gradients_are_clipped_as_they_are_applied(accumulates, is_scaled):
    optimizer = keras.optimizers.SGD(1e-3, gradient_accumulation_steps=accumulates)
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    callback = AdaptiveClipping("autoclip", percentile=50)
    if is_scaled and accumulates and keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match="On the JAX backend"):
            recorded(callback, optimizer)
        return
    history = recorded(callback, optimizer, jit_compile=False)
    applied = history.applied_global_norm[np.isfinite(history.applied_global_norm)]
    assert len(applied) == STEPS // (accumulates or 1)
    assert (np.diff(applied) < 10).all()  # unclipped outliers would be 100 times larger


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_replicas_are_clipped_as_one_device(two_replicas):
    def trained(strategy=None):
        import contextlib

        with strategy.scope() if strategy else contextlib.nullcontext():
            model, _ = compiled("dense", optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
        data = tuple(each[: STEPS // 2 * 2] for each in noisy())
        fit(model, data, batch_size=2, callbacks=[AdaptiveClipping("autoclip")])
        return model.get_weights()

    for one, two in zip(trained(), trained(two_replicas), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


class KilledError(Exception):
    """Exception in place of a kill: no callback runs after it."""


class Kill(keras.callbacks.Callback):
    """Raise `KilledError` before a batch of the second epoch."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.epoch = batch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, self.batch):
            raise KilledError


@pytest.mark.parametrize(("method", "is_last"), [("autoclip", True), ("zclip", False)])
def test_a_restored_training_goes_on_with_what_was_learnt(method, is_last, tmp_path):
    def trained(epochs, *others):
        model, _ = compiled("dense", optimizer=keras.optimizers.SGD(1e-2), jit_compile=False)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        both = [backup, AdaptiveClipping(method)]
        callbacks = [*(both if is_last else reversed(both)), *others]
        fit(model, noisy(), batch_size=1, epochs=epochs, callbacks=callbacks)
        return model.get_weights()

    undisturbed = trained(3)
    with pytest.raises(KilledError):
        trained(3, Kill(10))
    for one, other in zip(trained(3), undisturbed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fresh_callback_begins_anew_and_the_same_one_goes_on():
    def applied(*callbacks):
        model, _ = compiled("dense", optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
        monitor = GradientMonitor(verbose=0)
        for callback in callbacks:
            fit(model, noisy(), batch_size=1, callbacks=[callback, monitor])
        return np.split(monitor.history.applied_global_norm, 2)

    first, second = applied(AdaptiveClipping("zclip"), AdaptiveClipping("zclip"))
    np.testing.assert_array_equal(first, second)
    one = AdaptiveClipping("zclip")
    first, second = applied(one, one)
    assert (first != second).any()


def test_a_damaged_backup_is_reported(tmp_path):
    (tmp_path / "adaptive_clipping.npz").write_bytes(b"PK damaged")
    model, data = compiled("dense")
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be read\. Delete the file"):
        fit(model, data, callbacks=[backup, AdaptiveClipping()])


def test_a_refused_step_does_not_change_the_limit():
    x, y = noisy()
    x[20] = np.nan
    without = tuple(np.delete(each, 20, axis=0) for each in (x, y))

    def weights(data):
        model, _ = compiled("dense", optimizer=keras.optimizers.SGD(1e-2), jit_compile=False)
        guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
        fit(model, data, batch_size=1, callbacks=[AdaptiveClipping("zclip"), guard])
        return model.get_weights()

    for one, other in zip(weights((x, y)), weights(without), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.eager
def test_the_optimizers_own_clipping_is_refused():
    model, data = compiled("dense", optimizer=keras.optimizers.SGD(0.1, clipnorm=1.0))
    with pytest.raises(ValueError, match="has its own clipping"):
        fit(model, data, callbacks=[AdaptiveClipping()])
    fit(model, data, callbacks=[AdaptiveClipping(allow_optimizer_clipping=True)])


def test_bad_arguments():
    with pytest.raises(
        ValueError, match=r"Choose one of: agc, autoclip, percentile, zclip. Received: method="
    ):
        AdaptiveClipping("median")
    with pytest.raises(TypeError, match="z_threshold"):
        AdaptiveClipping("autoclip", z_threshold=1.0)
    for method, option in [
        ("autoclip", {"percentile": 101}),
        ("percentile", {"warmup": 0}),
        ("zclip", {"alpha": 1.0}),
        ("agc", {"clipping": 0.0}),
    ]:
        with pytest.raises(ValueError, match=next(iter(option))):
            AdaptiveClipping(method, **option)
