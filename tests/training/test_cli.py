"""The `gradkeeper` command: fast help, one-line errors, and the files that commands write."""

import importlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from gradkeeper import __version__, zoo
from gradkeeper.training import REMEDIES, Result, list_tasks
from gradkeeper.training.cli import app

# A shell's background job ignores SIGINT, and its child processes inherit this.
MAIN = """
import signal
from gradkeeper.training.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
COMMAND = [sys.executable, "-c", MAIN]
SIZE = ("--length", "6", "--units", "4", "--batch-size", "8", "--steps-per-epoch", "4")


@pytest.fixture(autouse=True)
def quiet_tensorflow(monkeypatch):
    """Set the log level, so that the command does not redirect pytest's error stream."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_what_needs_no_tensorflow_does_not_import_it(arguments):
    check = (
        "import sys; from gradkeeper.training.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_version():
    assert run("--version").output.strip() == f"gradkeeper {__version__}"


def test_list_names_all_models_and_tasks():
    output = run("list").output
    assert all(name in output for name in [*zoo.list_models(), *list_tasks()])


def test_list_follows_a_pattern():
    output = run("list", "*lstm*").output
    assert "ln_lstm" in output
    assert "gru" not in output
    assert "adding" not in output


def test_list_shows_all_of_one_model():
    output = run("list", "lem").output
    assert output.strip() == str(zoo.model_info("lem"))
    assert "dt is step_size" in output


def test_train_and_report(tmp_path, small):
    place = ("--run-dir", tmp_path / "run", "--data-dir", small["data_dir"])
    clip = ("--global-clipnorm", "0.5", "--optimizer-option", "beta_1=0.8")
    done = run("train", "gru", "--task", "adding", *SIZE, "--epochs", 1, *clip, *place)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "run" / "report.html") in done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task_options"] == {"length": 6}
    assert config["optimizer_options"] == {"beta_1": 0.8}
    assert config["global_clipnorm"] == 0.5

    resumed = run("train", "--resume", "--epochs", 2, "--flow", *place)
    assert resumed.exit_code == 0, resumed.output
    assert Result.load(tmp_path / "run").metrics["step"] == [4, 8]

    drawn = ("report.html", "loss.png", "gradients.png", "flow.png", "flow-end.png")
    for name in drawn:
        (tmp_path / "run" / name).unlink()
    assert run("report", tmp_path / "run").exit_code == 0
    for name in drawn:
        assert (tmp_path / "run" / name).exists(), name


def test_compare_with_gradients_through_time(tmp_path, small):
    place = ("--run-dir", tmp_path / "both", "--data-dir", small["data_dir"])
    done = run(
        "compare", "simple_rnn", "--task", "adding", *SIZE, "--epochs", 1, "--flow", *place
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "half-life" in done.output
    assert str(tmp_path / "both" / "flow.png") in done.output
    assert (tmp_path / "both" / "flow.png").stat().st_size > 10_000


def test_compare_variants_of_a_model(tmp_path, small):
    place = ("--run-dir", tmp_path / "both", "--data-dir", small["data_dir"])
    ones = {"class_name": "Constant", "config": {"value": 1}}
    texts = (
        "simple_rnn:recurrent_initializer=identity,activation=relu",
        f"gru:num_layers=2,bias_initializer={json.dumps(ones)},clipnorm=1",
    )
    done = run("compare", *texts, "--task", "adding", *SIZE, "--epochs", 1, *place)
    assert done.exit_code == 0, done.output
    configs = [json.loads(path.read_text()) for path in sorted(place[1].glob("*/config.json"))]
    assert [config["model"] for config in configs] == ["gru", "simple_rnn"]
    assert [config["num_layers"] for config in configs] == [2, 1]
    assert [config["clipnorm"] for config in configs] == [1, None]
    assert configs[0]["model_options"] == {"bias_initializer": ones}
    identity = {"recurrent_initializer": "identity", "activation": "relu"}
    assert configs[1]["model_options"] == identity


def test_compare_remedies(tmp_path, small, monkeypatch):
    some = {label: REMEDIES[label] for label in ("nothing done", "leaky ReLU clipped")}
    monkeypatch.setattr("gradkeeper.training.remedies.REMEDIES", some)
    place = ("--run-dir", tmp_path / "all", "--data-dir", small["data_dir"])
    done = run("compare", "remedies", "gru", "--task", "adding", *SIZE, "--epochs", 1, *place)
    assert done.exit_code == 0, done.output
    assert "remedies, gru on adding" in done.output
    configs = [json.loads(path.read_text()) for path in sorted(place[1].glob("*/config.json"))]
    assert [config["global_clipnorm"] for config in configs] == [None, 1.0, None]


def test_an_interrupted_training_ends_with_130_and_says_how_to_go_on(tmp_path, small):
    place = ["--run-dir", str(tmp_path / "run"), "--data-dir", str(small["data_dir"])]
    command = [*COMMAND, "train", "gru", "--task", "adding", *SIZE, "--epochs", "100000", *place]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 600
    try:
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "--resume" in output
    assert "Traceback" not in errors
    assert Result.load(tmp_path / "run").status == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "grew", "--task", "adding"], "Did you mean 'gru'"),
        (["train", "gru", "--task", "added"], "Did you mean 'adding'"),
        (["train", "gru"], "`--task` is missing"),
        (["train"], "model is missing"),
        (["train", "--resume"], "needs the run's `--run-dir`"),
        (["train", "gru", "--task", "adding", "--optimizer", "adm"], "Did you mean 'adam'"),
        (["train", "gru", "--task", "adding", "--length", "0"], "length=0"),
        (["train", "gru", "--task", "adding", "--option", "size=3"], "Allowed: length"),
        (["train", "gru", "--task", "adding", "--option", "length"], "takes key=value"),
        (["train", "gru", "--task", "adding", "--clipnorm", "-1"], "clipnorm=-1"),
        (
            ["train", "gru", "--task", "adding", "--clipnorm", "1", "--clipvalue", "1"],
            "one kind of clipping",
        ),
        (["compare", "gru", "gru", "--task", "adding"], "each model only once"),
        (["compare", "gru:units=3", "gru:units=3"], "each model only once"),
        (["compare", "gru:layer_norm"], "takes key=value, each key once. Received: 'layer_norm'"),
        (["compare", "gru:norm=true"], "Received: norm"),
        (["compare", "gru:task=copying"], "Received: model_options={'task': 'copying'}"),
        (["compare", "remedies", "--clipnorm", "1"], "of 'leaky ReLU clipped'"),
        (["list", "*transformer*"], "pattern='*transformer*'"),
        (["report", "nowhere"], "Not a run directory"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path):
    result = run("--debug", "report", tmp_path)
    assert isinstance(result.exception, FileNotFoundError)


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
    from gradkeeper.callbacks import NonFiniteGuard

    x, y = np.ones((32, 3), "float32"), np.zeros((32, 1), "float32")
    x[17, 2] = np.nan
    guard = NonFiniteGuard(capsule_dir=folder, verbose=0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[guard])
    return guard.events[0]


def test_replay(tmp_path, own):
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


@pytest.mark.parametrize("function", PARTS)
def test_the_command_for_a_model_with_parts_of_ones_own(tmp_path, own, function):
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


def test_a_place_that_gives_no_model(tmp_path, own):
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


def test_replay_of_no_capsule(tmp_path):
    result = run("replay", tmp_path)
    assert result.exit_code == 2
    assert "This is not a capsule: capsule.json is missing" in result.output


def test_replay_of_a_custom_layer_and_loss_in_a_fresh_process(tmp_path, own):
    event = failing(tmp_path / "capsules", own.layer_and_loss())
    arguments = ["replay", str(event.capsule), "--model", "my_models.py:layer_and_loss"]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "in the data, at [0], example 1" in done.stdout
