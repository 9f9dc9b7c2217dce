"""Training with a monitor equals training without one, and the monitor is removed afterwards."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard
from gradkeeper.callbacks.rules import Rule

pytestmark = pytest.mark.unbuilt_optimizer

CONFIGURATIONS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "several steps per execution": {"steps_per_execution": 2},
    "xla and several steps": {"steps_per_execution": 2, "jit_compile": True},
}
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.05),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.01),
    "accumulation": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
}


def assert_same_training(name, optimizer=lambda: keras.optimizers.Adam(0.01), **options):
    """Check that weights, optimizer state and losses are bit-identical with a monitor.

    XLA compiles a program with measurements differently, which changes the last bit on some
    processors.
    """
    plain, data = compiled(name, optimizer=optimizer(), **options)
    expected = fit(plain, data, epochs=2).history
    watched, data = compiled(name, optimizer=optimizer(), **options)
    monitor = GradientMonitor(verbose=0)
    history = fit(watched, data, epochs=2, callbacks=[monitor]).history
    tolerance = 1e-6 if options.get("jit_compile") else 0.0
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=tolerance)
    for one, other in zip(
        [*plain.variables, *plain.optimizer.variables],
        [*watched.variables, *watched.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=tolerance)
    assert len(monitor.history) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("embedding", "graph"),
        ("embedding", "xla and several steps"),
        ("convolutional", "eager"),
        ("convolutional", "several steps per execution"),
    ],
)
def test_training_is_the_same(name, configuration):
    assert_same_training(name, **CONFIGURATIONS[configuration])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_the_same_with(optimizer):
    run_eagerly = optimizer in ("clipnorm", "clipvalue")  # clipped by the same method
    assert_same_training("dense", OPTIMIZERS[optimizer], run_eagerly=run_eagerly)


@pytest.mark.eager
def test_epoch_logs_reach_history_and_csv_logger(tmp_path):
    model, data = compiled("dense", optimizer=keras.optimizers.SGD(0.1, global_clipnorm=0.1))
    log = tmp_path / "log.csv"
    history = fit(
        model, data, callbacks=[GradientMonitor(), keras.callbacks.CSVLogger(log)], epochs=2
    ).history
    assert history["clip_fraction"] == [1.0, 1.0]
    np.testing.assert_allclose(history["grad_norm_applied"], 0.1, rtol=1e-5)
    assert min(history["grad_norm"]) > 0.1
    assert "grad_norm_applied" in log.read_text().splitlines()[0]


@pytest.mark.eager
def test_the_epochs_norm_is_the_mean_over_finite_steps():
    model, (x, y) = compiled("dense", optimizer=keras.optimizers.SGD(0.0))
    bad = x.copy()
    bad[9] = np.nan  # within the second of three batches
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    monitor = GradientMonitor(verbose=0)
    logs = fit(model, (bad, y), callbacks=[monitor, guard]).history
    norms = monitor.history.global_norm
    assert logs["nonfinite_steps"] == [1]
    assert logs["grad_norm"] == [pytest.approx(np.nanmean(norms))]
    assert logs["grad_norm_applied"] == [pytest.approx(np.nanmean(norms))]


@pytest.mark.eager
def test_an_epoch_without_a_finite_step_has_no_mean():
    model, (x, y) = compiled("dense")
    logs = fit(model, (np.full_like(x, np.nan), y), callbacks=[GradientMonitor(verbose=0)]).history
    assert np.isnan(logs["grad_norm"]).all()
    assert logs["nonfinite_steps"] == [3]


@pytest.mark.eager
def test_early_stopping_sees_the_norms():
    model, data = compiled("dense")
    stops = keras.callbacks.EarlyStopping("grad_norm", mode="max", patience=1)
    history = fit(model, data, callbacks=[GradientMonitor(), stops], epochs=30).history
    assert len(history["grad_norm"]) < 30


@pytest.mark.eager
def test_tensorboard_sees_the_norms(tmp_path):
    pytest.importorskip("tensorboard", reason="an option of TensorFlow that is not installed")
    model, data = compiled("dense")
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    fit(model, data, callbacks=[GradientMonitor(), board])
    (events,) = tmp_path.glob("train/events*")
    assert b"epoch_grad_norm_applied" in events.read_bytes()


class Raises(keras.callbacks.Callback):
    """Raise an exception at the second batch."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise self.error


def traces_of(model):
    return {name: vars(owner).get(name) for owner, name in _places(model)}


def _places(model):
    return [
        (model, "train_step"),
        (model, "train_function"),
        (model.optimizer, "apply"),
        (model.optimizer, "_clip_gradients"),
    ]


@pytest.mark.eager
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_nothing_stays_after_an_exception(error):
    model, data = compiled("dense")
    fit(model, data)
    before = traces_of(model)
    monitor = GradientMonitor()
    with pytest.raises(type(error)):
        fit(model, data, callbacks=[monitor, Raises(error)])
    assert traces_of(model) == before
    assert len(monitor.history) == 2
    fit(model, data, callbacks=[monitor])
    assert len(monitor.history) == 5
    assert traces_of(model) == before


def test_an_exception_between_arming_and_the_step_leaves_no_row_behind():
    class RaisesEarly(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise RuntimeError("boom")

    model, data = compiled("dense")
    monitor = GradientMonitor()
    with pytest.raises(RuntimeError, match="boom"):
        fit(model, data, callbacks=[monitor, RaisesEarly()])
    fit(model, data, callbacks=[monitor])
    assert monitor.history.steps.tolist() == [0, 1, 2]


def test_nothing_stays_after_a_train_step_that_raises():
    model, (x, y) = compiled("dense", run_eagerly=True)
    before = traces_of(model)
    with pytest.raises(ValueError, match="incompatible"):
        fit(model, (x[:, :3], y), callbacks=[GradientMonitor()])
    assert traces_of(model)["apply"] is before["apply"] is None
    assert traces_of(model)["train_step"] is None


@pytest.mark.slow
def test_nothing_stays_after_fit():
    model, data = compiled("dense")
    fit(model, data)
    before = traces_of(model)
    fit(model, data, callbacks=[GradientMonitor()])
    assert traces_of(model) == before


class CountsTraces(keras.layers.Layer):
    traces = 0

    def call(self, x):
        self.traces += 1
        return x


@pytest.mark.slow
def test_a_second_fit_does_not_trace_again():
    counter = CountsTraces()
    model = keras.Sequential([keras.Input((6,)), counter, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.ones((16, 6), "float32"), np.ones((16, 1), "float32")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    once = counter.traces
    fit(model, data, callbacks=[monitor])
    fit(model, data, callbacks=[GradientMonitor()])
    assert counter.traces == once
    fit(model, data)
    plain = counter.traces
    fit(model, data, callbacks=[monitor])
    fit(model, data)
    assert counter.traces == plain
    assert len(monitor.history) == 6


@pytest.mark.eager
def test_two_monitors_in_one_fit_record_the_same():
    model, data = compiled("dense")
    first, second = GradientMonitor(), GradientMonitor(flush_every=1)
    fit(model, data, epochs=2, callbacks=[first, second])
    np.testing.assert_array_equal(first.history.norms, second.history.norms)
    assert len(first.history) == 6


class NestedFit(keras.callbacks.Callback):
    """Fit another model, or the same model, at the end of the first batch."""

    def __init__(self, fit_inside):
        super().__init__()
        self.fit_inside = fit_inside

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.fit_inside()


@pytest.mark.eager
def test_another_model_is_another_run_for_the_rules():
    class FirstStep(Rule):
        name = "first_step"

        def __init__(self):
            self.reset()

        def reset(self):
            self.seen = False

        def check(self, window):
            if not self.seen:
                self.seen = True
                yield self._finding(window.steps[0], message="First.", advice="None.")

    monitor = GradientMonitor(rules=[FirstStep()], verbose=0)
    (one, data), (other, _) = compiled("dense"), compiled("dense")
    for model in (one, one, other):
        fit(model, data, callbacks=[monitor])
    assert [finding.step for finding in monitor.findings] == [0, 6]
    assert monitor.history.steps.tolist() == list(range(9))


def test_a_fit_inside_a_fit_is_not_recorded_by_the_outer_monitor():
    model, data = compiled("dense")
    outer, inner = GradientMonitor(), GradientMonitor()
    nested = NestedFit(lambda: fit(model, data, callbacks=[inner]))
    fit(model, data, callbacks=[outer, nested])
    assert (len(outer.history), len(inner.history)) == (3, 3)


@pytest.mark.eager
def test_one_monitor_in_two_fits_at_once_is_refused():
    model, data = compiled("dense")
    other, _ = compiled("dense")
    monitor = GradientMonitor()
    nested = NestedFit(lambda: fit(other, data, callbacks=[monitor]))
    with pytest.raises(RuntimeError, match="attached to a fit that is still running"):
        fit(model, data, callbacks=[monitor, nested])


def test_one_monitor_in_two_threads_at_once_is_refused():
    model, data = compiled("dense")
    other, _ = compiled("dense")
    monitor, errors = GradientMonitor(), []

    def fit_beside():
        with pytest.raises(RuntimeError, match="Use a separate callback for each fit") as caught:
            fit(other, data, callbacks=[monitor])
        errors.append(caught)

    def in_another_thread():
        thread = threading.Thread(target=fit_beside)
        thread.start()
        thread.join()

    fit(model, data, callbacks=[monitor, NestedFit(in_another_thread)])
    assert len(errors) == 1
    assert len(monitor.history) == 3


class ByHand:
    """Train function in the form of a bound method, which accepts no attributes."""

    def __init__(self, model):
        model.make_train_function()
        self.inside, self.calls = model.train_function, 0

    def run(self, iterator):
        self.calls += 1
        return self.inside(iterator)


def test_a_train_function_set_by_hand_is_run_and_not_thrown_away():
    model, data = compiled("dense", run_eagerly=True)
    by_hand = ByHand(model)
    model.train_function = by_hand.run
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    assert model.train_function == by_hand.run
    assert (by_hand.calls, len(monitor.history)) == (3, 3)


class Recompiles(keras.callbacks.Callback):
    """Freeze the first layer after the first batch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.model.layers[0].trainable = False
            self.model.compile("sgd", "mse")
            self.model.make_train_function()


@pytest.mark.slow
def test_recompiling_inside_a_fit_is_followed():
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor, Recompiles()])
    assert monitor.history.present.tolist() == [[True] * 4, *[[False, False, True, True]] * 2]


@pytest.mark.slow
def test_the_model_is_collectable_while_the_history_lives():
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    history, alive = monitor.history, weakref.ref(model)
    monitor.set_model(keras.Sequential())
    del model
    gc.collect()
    assert alive() is None
    assert len(history) == 3


@pytest.mark.eager
def test_saving_in_the_middle_of_fit(tmp_path):
    model, data = compiled("dense")
    path = tmp_path / "model.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(model, data, callbacks=[GradientMonitor(), checkpoint])
    restored = keras.saving.load_model(path)
    for one, other in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.eager
def test_bad_arguments_are_refused():
    with pytest.raises(
        ValueError, match=r"`flush_every` must be an integer of at least 1.*Received"
    ):
        GradientMonitor(flush_every=0)
    with pytest.raises(ValueError, match=r"(?s)nonfinite.*Received.*unheard"):
        GradientMonitor(rules=["unheard"])
    with pytest.raises(TypeError, match=r"Keras 3 model.*Received"):
        GradientMonitor().set_model(object())
