"""Messages of the guard: replay command, missing configuration, progress bar, custom loops."""

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import Capsule, GradientMonitor, NonFiniteGuard


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.out = keras.layers.Dense(units)

    def call(self, x):
        return self.out(x)


def fit(model, bad, *callbacks, verbose=0, batches=4):
    x = np.ones((4 * batches, 3), "float32")
    for batch in bad:
        x[4 * batch] = np.nan
    y = np.zeros((len(x), 1), "float32")
    options = {"batch_size": 4, "shuffle": False, "verbose": verbose}
    return model.fit(x, y, callbacks=list(callbacks), **options)


def dense(**options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="mae")], **options)
    return model


def test_the_replay_command_is_on_a_line_of_its_own(capsys):
    model = Subclassed(1)
    model.compile("sgd", "mse")
    guard = NonFiniteGuard("skip")
    fit(model, [1], guard)
    command = "gradkeeper replay capsules/step-00000001 --model YOUR_MODULE:FUNCTION"
    lines = capsys.readouterr().out.splitlines()
    assert f"  {command}" in lines
    assert any("(MODULE:FUNCTION or FILE.py:FUNCTION)" in line for line in lines)


def test_a_model_without_configuration_is_left_out_for_a_reason():
    model = Subclassed(1)
    model.compile("sgd", "mse")
    guard = NonFiniteGuard("skip", verbose=0)
    fit(model, [1], guard)
    (reason,) = Capsule.read(guard.events[0].capsule).left_out
    assert reason == "model configuration: Subclassed has no get_config()"


@pytest.mark.parametrize("callback", [GradientMonitor, NonFiniteGuard])
def test_a_loop_without_gradients_has_no_empty_remedy(callback, capsys):
    optimizer = keras.optimizers.SGD()
    with callback().watch(optimizer):
        pass
    printed = capsys.readouterr().out
    assert "the optimizer was not passed to watch()" in printed
    assert "()" not in printed.replace("watch()", "").replace("apply()", "")


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_the_progress_bar_shows_no_loss_of_zero(way, capsys, monkeypatch):
    shown = []

    def update(bar, current, values=None, finalize=None):
        shown.append(dict(values or []))

    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    with monkeypatch.context() as patched:
        patched.setattr(keras.utils.Progbar, "update", update)
        terminate = keras.callbacks.TerminateOnNaN()
        fit(dense(**way), [0, 1, 3], guard, terminate, verbose=1, batches=5)
    losses = [values["loss"] for values in shown]
    assert np.isfinite(losses).tolist() == [False, False, True, True, True, True]
    assert np.isfinite([values["mae"] for values in shown]).tolist() == np.isfinite(losses).tolist()
    capsys.readouterr()
    fit(dense(**way), [0, 1, 2, 3], guard, verbose=1)
    printed = capsys.readouterr().out
    assert "loss: nan" in printed
    assert "0.0000e+00" not in printed


@pytest.mark.slow
def test_a_loss_of_zero_is_shown_if_a_step_was_applied(capsys):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse", jit_compile=False)
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    fit(model, [], guard, verbose=1)
    printed = capsys.readouterr().out
    assert "0.0000e+00" in printed
    assert "nan" not in printed


def test_the_first_bad_step_of_an_eager_run_leaves_no_trace_in_new_metrics():
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    history = fit(dense(run_eagerly=True), [0], guard).history
    assert np.isfinite([history["loss"], history["mae"]]).all()
