"""`gradkeeper replay`."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from gradkeeper.callbacks import NonFiniteGuard

OWN = """
import keras

class Mine(keras.layers.Layer):
    def call(self, x):
        return x * 2.0

@keras.saving.register_keras_serializable()
class Registered(Mine):
    pass

class OwnLoss(keras.losses.MeanSquaredError):
    pass

def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))

class OwnMetric(keras.metrics.MeanSquaredError):
    pass

def own_metric(y_true, y_pred):
    return keras.ops.mean(y_pred)

def build(layers=(), loss="mse", metrics=()):
    layers = [keras.Input((3,)), *layers, keras.layers.Dense(1, name="last")]
    model = keras.Sequential(layers)
    model.compile("sgd", loss, metrics=list(metrics))
    return model

def layer(): return build([Mine()])
def registered(): return build([Registered()])
def loss(): return build(loss=own_loss)
def loss_class(): return build(loss=OwnLoss())
def metric(): return build(metrics=[own_metric])
def metric_class(): return build(metrics=[OwnMetric()])
def layer_and_loss(): return build([Mine()], own_loss)
def needs(kind): return build()
def wrong(): return 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module with custom layers, losses and metrics to the working directory."""
    (tmp_path / "my_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_models", None)
    yield importlib.import_module("my_models")
    sys.modules.pop("my_models", None)


def failing(folder, model):
    """Return the guard's event of a training whose third batch is bad."""
    x, y = np.ones((32, 3), "float32"), np.zeros((32, 1), "float32")
    x[17, 2] = np.nan
    guard = NonFiniteGuard(capsule_dir=folder, verbose=0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[guard])
    return guard.events[0]


def test_replay(run, tmp_path, own):
    event = failing(tmp_path / "capsules", own.build())
    assert event.how_to_replay == f"Replay it: gradkeeper replay {event.capsule}"
    result = run("replay", event.capsule, "--plot", tmp_path / "step.png", "--trust-model")
    assert result.exit_code == 0, result.output
    assert "Step 2 of" in result.output
    assert "in the data, at [0], example 1" in result.output
    assert "Clean the data before training" in result.output
    assert "last" in result.output
    assert (tmp_path / "step.png").stat().st_size > 5000


PARTS = {
    "layer": "Mine",
    "registered": "Registered",
    "loss": "own_loss",
    "loss_class": "OwnLoss",
    "metric": "own_metric",
    "metric_class": "OwnMetric",
}


@pytest.mark.slow
@pytest.mark.parametrize("function", PARTS)
def test_model_with_custom_parts(run, tmp_path, own, function):
    event = failing(tmp_path / "capsules", getattr(own, function)())
    assert event.how_to_replay.endswith(f"{event.capsule} --model YOUR_MODULE:FUNCTION")
    assert f"The model has custom parts ({PARTS[function]})" in event.how_to_replay
    for place in (f"my_models:{function}", f"my_models.py:{function}"):
        replayed = run("replay", event.capsule, "--model", place)
        assert "in the data" in replayed.output, replayed.output
    if function != "registered":  # registered by this process
        alone = run("replay", event.capsule, "--trust-model")
        assert alone.exit_code == 2
        assert "--model FILE.py:FUNCTION" in alone.output
        assert f"Received: {PARTS[function]}" in alone.output
        assert "config" not in alone.output


def test_place_without_a_model_is_refused(run, tmp_path, own):
    capsule = failing(tmp_path / "capsules", own.loss()).capsule
    for place, message in {
        "my_models": "must be MODULE:FUNCTION or FILE.py:FUNCTION",
        "my_models:none": "No attribute 'none' in my_models",
        "my_models:wrong": "must return a compiled keras.Model. Received: --model my_models:wrong, "
        "which returns an object of type int",
        "my_models:needs": "must name a function without arguments",
        "no_module:build": "The module no_module does not exist",
        "no_file.py:build": "The file no_file.py does not exist",
    }.items():
        refused = run("replay", capsule, "--model", place)
        assert refused.exit_code == 2
        assert message in refused.output


def test_folder_that_is_no_capsule(run, tmp_path):
    result = run("replay", tmp_path)
    assert result.exit_code == 2
    assert "This is not a capsule: capsule.json is missing" in result.output


@pytest.mark.slow
def test_custom_layer_and_loss_in_a_fresh_process(tmp_path, own):
    event = failing(tmp_path / "capsules", own.layer_and_loss())
    command = "from gradkeeper.training.cli import main; main()"
    arguments = ["replay", str(event.capsule), "--model", "my_models.py:layer_and_loss"]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "in the data, at [0], example 1" in done.stdout
