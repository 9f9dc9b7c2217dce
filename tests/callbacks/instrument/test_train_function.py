"""One row per train step, for every way to compile, run or replace the train step."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.instrument import train_function
from gradkeeper.callbacks.instrument.step_patches import StepPatches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected():
    """Return the norms of three steps of an ordinary fit."""
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    return monitor.history.norms


KERAS = tuple(map(int, keras.__version__.split(".")[:2]))

# Keras warns at the end of every dataset of unknown size.
ends_early = pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")


@ends_early
@pytest.mark.parametrize(("steps", "known_size"), [(1, False), (5, True), (5, False)])
def test_steps_per_execution_with_a_partial_last_execution(expected, steps, known_size):
    model, data = compiled("dense", steps_per_execution=steps)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    if not known_size:
        dataset = dataset.filter(lambda x, y: True)
    monitor = GradientMonitor()
    model.fit(dataset, epochs=2, verbose=0, shuffle=False, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.norms[:3], expected, rtol=1e-6)
    assert monitor.history.steps.tolist() == list(range(6))


@pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning")
def test_run_functions_eagerly(expected):
    tf.config.run_functions_eagerly(True)
    try:
        model, data = compiled("dense")
        monitor = GradientMonitor()
        fit(model, data, callbacks=[monitor])
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)


@ends_early
def test_a_generator_of_batches(expected):
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor()
    batches = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 24, 8))
    model.fit(batches, verbose=0, shuffle=False, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)


class MakesItsOwn(keras.Model):
    """Model that overrides `make_train_function`, as the Keras documentation allows."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside
        self.made = 0

    def call(self, x):
        return self.inside(x)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return self.train_function
        self.made += 1
        step = tf.function(self.train_step)
        self.train_function = lambda iterator: step(next(iterator))
        return self.train_function


def test_a_make_train_function_of_the_users_own(expected):
    inside, data = compiled("dense")
    model = MakesItsOwn(inside)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    plain = model.train_function
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)
    fit(model, data, callbacks=[monitor])
    assert model.train_function is plain
    assert model.made == 2


def counting(model):
    """Return a closure around Keras's train function that counts its calls."""
    model.make_train_function()
    inside, calls = model.train_function, []

    def train_function(iterator):
        calls.append(1)
        return inside(iterator)

    return train_function, calls


class Wrapper:
    """Object with a method that calls Keras's train function and counts the calls."""

    def __init__(self, model):
        model.make_train_function()
        self.inside, self.calls = model.train_function, []

    def run(self, iterator):
        self.calls.append(1)
        return self.inside(iterator)


def wrapped(model):
    wrapper = Wrapper(model)
    return wrapper.run, wrapper.calls


@pytest.mark.parametrize(("replace", "traced_before"), [(counting, True), (wrapped, False)])
def test_a_replaced_train_function_is_wrapped_even_if_it_was_traced(
    expected, replace, traced_before
):
    model, data = compiled("dense", optimizer=keras.optimizers.SGD(0.1))
    if traced_before:
        weights = model.get_weights()
        fit(model, data)
        model.set_weights(weights)
    function, calls = replace(model)
    model.train_function = function
    monitor = GradientMonitor()
    fit(model, data, callbacks=[monitor])
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)
    assert len(calls) == 3
    assert model.train_function == function
    recorded = len(monitor.history)
    fit(model, data)
    assert len(calls) == 6
    assert len(monitor.history) == recorded
    fit(model, data, callbacks=[GradientMonitor()])
    assert len(calls) == 9


def test_a_callback_list(expected):
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(
        model,
        data,
        callbacks=keras.callbacks.CallbackList([monitor], add_history=True, model=model),
    )
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)


def test_a_loop_that_drives_the_callbacks_itself(expected):
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor()
    callbacks = keras.callbacks.CallbackList([monitor], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(3):
        callbacks.on_train_batch_begin(batch)
        model.train_on_batch(x[8 * batch : 8 * batch + 8], y[8 * batch : 8 * batch + 8])
        callbacks.on_train_batch_end(batch)
    callbacks.on_epoch_end(0, {})
    callbacks.on_train_end()
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)


def test_a_loop_whose_functions_have_returned(expected):
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor()
    callbacks = keras.callbacks.CallbackList([monitor], model=model)

    def before(batch):
        callbacks.on_train_batch_begin(batch)

    def step(batch):
        model.train_on_batch(x[8 * batch : 8 * batch + 8], y[8 * batch : 8 * batch + 8])

    callbacks.on_train_begin()
    for batch in range(3):
        before(batch)
        step(batch)
    callbacks.on_train_end()
    np.testing.assert_allclose(monitor.history.norms, expected, rtol=1e-6)


def test_zero_epochs_and_an_early_stop():
    model, data = compiled("dense")
    monitor = GradientMonitor()
    fit(model, data, epochs=0, callbacks=[monitor])
    assert len(monitor.history) == 0

    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    fit(model, data, epochs=5, callbacks=[monitor, Stops()])
    assert monitor.history.steps.tolist() == [0, 1]
    fit(model, data, callbacks=[monitor])
    assert monitor.history.steps.tolist() == [0, 1, 2, 3, 4]


def test_two_fits_in_two_threads(expected):
    monitors, threads = [], []
    for _ in range(2):
        model, data = compiled("dense")
        monitors.append(GradientMonitor())
        work = lambda m=model, d=data, w=monitors[-1]: fit(m, d, epochs=3, callbacks=[w])
        threads.append(threading.Thread(target=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for monitor in monitors:
        np.testing.assert_allclose(monitor.history.norms[:3], expected, rtol=1e-6)
        assert len(monitor.history) == 9


def test_the_monitor_requests_no_logs_of_a_batch():
    """Check that no hook makes Keras compute the logs of a step before the next step."""
    hook = "on_train_batch_end"
    assert getattr(GradientMonitor, hook) is getattr(keras.callbacks.Callback, hook)


class Noisy(keras.Model):
    """Model that draws noise from TensorFlow and Keras generators between two updates."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(3), keras.layers.Dense(1)
        self.generator = keras.random.SeedGenerator(5)
        self.one, self.two = keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01)

    def train_step(self, data):
        x, y = data
        noise = tf.random.normal(tf.shape(x)) + keras.random.normal((4,), seed=self.generator)
        for layers, optimizer in (([self.first], self.one), ([self.second], self.two)):
            with tf.GradientTape() as tape:
                out = self.second(self.first(x + noise))
                loss = tf.reduce_mean(tf.square(out - y + tf.random.normal(tf.shape(y))))
            variables = [v for layer in layers for v in layer.trainable_variables]
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def test_noise_is_the_same_sequence_over_two_fits():
    weights = []
    for monitors in ([], [GradientMonitor(verbose=0)]):
        keras.utils.set_random_seed(7)
        model = Noisy()
        model.compile(jit_compile=False, steps_per_execution=2)
        data = np.ones((16, 4), "float32"), np.ones((16, 1), "float32")
        fit(model, data, callbacks=monitors)
        fit(model, data, callbacks=monitors)
        weights.append(model.get_weights())
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)


def test_two_monitors_trace_once():
    class CountsTraces(keras.layers.Layer):
        traces = 0

        def call(self, x):
            self.traces += 1
            return x

    def traces_with(monitors):
        counter = CountsTraces()
        model = keras.Sequential([keras.Input((6,)), counter, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        counter.traces = 0
        fit(model, (np.ones((16, 6)), np.ones((16, 1))), callbacks=monitors)
        return counter.traces

    assert traces_with([GradientMonitor(), GradientMonitor()]) == traces_with([])


@pytest.fixture(params=[True, False], ids=["held", "looked up"])
def train_step_is_held(request, monkeypatch):
    """Return True if the train function holds the train step (since Keras 3.15), not the model."""
    if not request.param:
        monkeypatch.setattr(StepPatches, "are_called_by", lambda hooks, function: False)
    return request.param


@pytest.mark.parametrize(
    ("how", "train_step_is_held"),
    [({"jit_compile": True}, True), ({"run_eagerly": True}, True), ({}, False)],
    indirect=["train_step_is_held"],
)
def test_a_step_that_is_traced_anew_later_is_seen_like_the_first(how, train_step_is_held):
    model, (x, y) = compiled("dense", **how)
    monitor = GradientMonitor(verbose=0)
    fit(model, (x, y), callbacks=[monitor])
    before = model.get_weights()
    fit(model, (x[:10], y[:10]), batch_size=5, callbacks=[monitor])
    fresh, _ = compiled("dense", **how)
    fresh.set_weights(before)
    alone = GradientMonitor(verbose=0)
    fit(fresh, (x[:10], y[:10]), batch_size=5, callbacks=[alone])
    assert len(monitor.history) == 5
    np.testing.assert_allclose(monitor.history.norms[3:], alone.history.norms, rtol=1e-6)


def test_the_model_and_its_optimizer_are_wrapped_only_while_a_step_is_traced(
    monkeypatch, train_step_is_held
):
    model, data = compiled("dense")
    wrapped = []

    def looking(iterator, stages):
        wrapped.append(("apply" in vars(model.optimizer), "train_step" in vars(model)))
        return iterator

    monkeypatch.setattr(train_function, "_shown", looking)
    fit(model, data, callbacks=[GradientMonitor(verbose=0)])
    held = train_step_is_held and KERAS >= (3, 15)
    assert wrapped == [(True, True), *[(False, not held)] * 2]
    assert "train_step" not in vars(model)
