"""Ctrl-C during training."""

import os
import signal
import threading

import keras
import numpy as np
import pytest

from gradkeeper.training.experiment.interruption import InterruptBetweenSteps

STEPS = 3


class CtrlC(keras.callbacks.Callback):
    """Send SIGINT within code that catches every exception, as some libraries do."""

    def __init__(self, *events, times=1):
        super().__init__()
        self.events, self.times = events, times
        self.seen, self.caught = [], 0

    def _note(self, event):
        self.seen.append(event)
        if event in self.events:
            for _ in range(self.times):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    self.caught += 1

    def on_train_batch_begin(self, batch, logs=None):
        self._note(f"begin {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self._note(f"end {batch}")

    def on_test_batch_begin(self, batch, logs=None):
        self._note(f"test {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self._note("epoch")

    def on_train_end(self, logs=None):
        self._note("train")


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@pytest.fixture(autouse=True)
def handler():
    """Use Python's handler, which a background job of a shell does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fit(model, *callbacks):
    data = np.ones((STEPS, 2), np.float32), np.ones((STEPS, 1), np.float32)
    interruption = InterruptBetweenSteps()
    with interruption:
        model.fit(*data, batch_size=1, epochs=2, validation_data=data, verbose=0,
                  callbacks=[*callbacks, interruption])  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "last"),
    [("begin 1", "end 1"), ("end 1", "end 1"), ("test 0", "test 0"), ("epoch", "epoch")],
)
def test_training_ends_after_the_step_although_libraries_catch_exceptions(model, sent, last):
    ctrl_c = CtrlC(sent)
    with pytest.raises(KeyboardInterrupt):
        fit(model, ctrl_c)
    assert ctrl_c.seen[-1] == last
    assert ctrl_c.caught == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interruption_in_the_last_callback_is_raised_after_the_training(model):
    with pytest.raises(KeyboardInterrupt):
        fit(model, CtrlC("train"))


def test_second_interruption_is_raised_at_once(model, capfd):
    ctrl_c = CtrlC("begin 1", times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(model, ctrl_c)
    assert ctrl_c.caught == 1
    assert capfd.readouterr().err.count("Press Ctrl-C again to stop at once.") == 1


def test_error_of_the_training_is_raised_instead_of_the_interruption(model):
    def fail(batch, logs):
        raise RuntimeError("boom")

    failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(RuntimeError, match="boom"):
        fit(model, CtrlC("begin 1"), failing)


def test_other_handlers_and_threads_keep_theirs(model):
    def own(number, frame):
        pass

    signal.signal(signal.SIGINT, own)
    with InterruptBetweenSteps():
        assert signal.getsignal(signal.SIGINT) is own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = []

    def enter():
        with InterruptBetweenSteps():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_training_without_an_interruption_is_complete(model):
    ctrl_c = CtrlC()
    fit(model, ctrl_c)
    assert ctrl_c.seen.count("epoch") == 2
    assert ctrl_c.seen[-1] == "train"
