"""Progress display during training."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.training.experiment.progress import TrainingProgress


def fit(*, terminal, poison=False):
    """Return the printed output of a training of 2 epochs of 5 steps."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", run_eagerly=True)
    inputs = np.ones((10, 3), np.float32)
    if poison:
        inputs[7] = np.nan
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    monitor = GradientMonitor(verbose=0)
    progress = TrainingProgress(monitor, "a model", console=console)
    with progress:
        model.fit(inputs, inputs[:, :1], batch_size=2, epochs=2, shuffle=False, verbose=0,
                  callbacks=[monitor, progress])  # fmt: skip
    return console.file.getvalue()


def test_one_line_per_epoch_without_a_terminal():
    lines = fit(terminal=False).splitlines()
    assert lines[0] == "a model: 4 parameters"
    assert [line.split()[1] for line in lines[1:]] == ["1/2", "2/2"]
    assert all("loss" in line and "grad_norm" in line for line in lines[1:])


def test_progress_bar_on_a_terminal():
    output = fit(terminal=True)
    assert "a model" in output
    assert "epoch 2/2" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize("terminal", [False, True])
def test_finding_is_printed_once(terminal):
    output = fit(terminal=terminal, poison=True)
    assert output.count("nonfinite at step 3") == 1
    assert "head" in output
