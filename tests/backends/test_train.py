"""Experiments and commands on JAX and torch: run directory, resumption, settings and errors."""

import importlib.util
import json

import keras
import numpy as np
import pytest

if not importlib.util.find_spec("tensorflow"):
    pytest.skip("the tasks read their data with tf.data", allow_module_level=True)

from typer.testing import CliRunner

from gradkeeper.callbacks import GradientMonitor, TemporalGradientFlow
from gradkeeper.training import Experiment, Result, enable_multi_worker
from gradkeeper.training.cli import app

pytestmark = pytest.mark.usefixtures("undrawn", "datasets_are_not_tuned")

BACKEND = keras.backend.backend()
HERE = f"KERAS_BACKEND={BACKEND}"
STEPS = 3
COMPARED = ("epoch", "step", "loss", "val_loss", "grad_norm", "grad_norm_applied", "clip_fraction")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Return `experiment(run_dir, **changes)`, with random weights, dropout and zoneout."""
    settings = {
        "model": "zoneout_gru",
        "task": "adding",
        "units": 3,
        "model_options": {"dropout": 0.2},
        "task_options": {"length": 4},
        "batch_size": 40,
        "epochs": 2,
        "steps_per_epoch": STEPS,
        "schedule": "cosine",
        "global_clipnorm": 0.1,
        "data_dir": tmp_path_factory.mktemp("tensorflow_datasets"),
    }
    return lambda run_dir, **changes: Experiment(**{**settings, **changes}, run_dir=run_dir)


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("runs") / "one").run(verbose=0)


class RaiseAt(keras.callbacks.Callback):
    """Raise an exception at the end of one train step."""

    def __init__(self, step, error):
        super().__init__()
        self.remaining, self.error = step, error

    def on_train_batch_end(self, batch, logs=None):
        self.remaining -= 1
        if not self.remaining:
            raise self.error


def test_run_directory_has_the_files_of_a_run_on_tensorflow(finished):
    files = {path.relative_to(finished.run_dir).as_posix() for path in finished.run_dir.rglob("*")}
    files -= {"gradients", "checkpoints", "checkpoints/backup"}
    records = {each for each in files if each.startswith("gradients/gradients-")}
    assert records
    assert files - records == {
        *("config.json", "status.json", "metrics.csv", "findings.json", "model.keras"),
        *("checkpoints/best.keras", "checkpoints/backup/latest.weights.h5"),
        *("report.html", "loss.png", "gradients.png"),
    }
    assert len(finished.history.steps) == 2 * STEPS
    assert finished.clip_fraction == 1
    status = json.loads((finished.run_dir / "status.json").read_text())
    assert status["backend"] == BACKEND
    assert set(status["versions"]) == {"gradkeeper", "keras", "tensorflow", BACKEND}


def test_resumed_run_equals_an_uninterrupted_one(finished, experiment, tmp_path, capsys):
    stop = RaiseAt(STEPS + 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path, callbacks=[stop]).run(verbose=0)
    stopped = Result.load(tmp_path)
    assert (stopped.status, len(stopped.metrics["epoch"])) == ("interrupted", 1)
    assert (tmp_path / "model.keras").exists()

    resumed = experiment(tmp_path, resume=True, flow=True).run()
    leaves_out = "records no gradients through time" in capsys.readouterr().out
    assert leaves_out is not TemporalGradientFlow.supports_backend()
    assert leaves_out is not bool(resumed.flows)
    assert resumed.status == "finished"
    for name in COMPARED:
        np.testing.assert_allclose(resumed.metrics[name], finished.metrics[name], 1e-6, 1e-6)
    np.testing.assert_array_equal(resumed.history.steps, finished.history.steps)
    np.testing.assert_allclose(resumed.history.norms, finished.history.norms, 1e-6, 1e-6)
    models = (keras.saving.load_model(each.run_dir / "model.keras") for each in (resumed, finished))
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.usefixtures("float16_policy")
def test_mixed_precision_and_several_steps_per_execution(experiment, tmp_path):
    several = {"steps_per_execution": 2} if BACKEND == "jax" else {}  # Keras has 1 on torch
    changes = {"epochs": 1, "steps_per_epoch": 4, **several}
    result = experiment(tmp_path, **changes).run(verbose=0)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite([result.final_loss, *result.history.global_norm]).all()
    assert result.history.steps.tolist() == [0, 1, 2, 3]


@pytest.fixture
def float16_policy():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution needs JAX")
def test_data_parallel_training_equals_that_on_one_device(finished, experiment, tmp_path):
    devices = keras.distribution.list_devices()
    assert len(devices) == 4
    with keras.distribution.DataParallel(devices=devices).scope():
        result = experiment(tmp_path, model_options={"dropout": 0.2}).run(verbose=0)
    for name in ("loss", "val_loss", "grad_norm"):
        np.testing.assert_allclose(result.metrics[name], finished.metrics[name], 1e-5)


class FailInStep(keras.callbacks.Callback):
    """Make the train step of the model raise an exception."""

    def on_train_begin(self, logs=None):
        def train_step(*args):
            raise ZeroDivisionError("in the step")

        self.model.train_step = train_step


def test_exception_inside_a_step_is_not_hidden_by_the_missing_weights(experiment, tmp_path):
    with pytest.raises(ZeroDivisionError, match="in the step"):
        experiment(tmp_path, callbacks=[FailInStep()]).run(verbose=0)
    assert Result.load(tmp_path).status == "failed"
    assert (tmp_path / "report.html").exists()
    # JAX has moved the weights into the step.
    assert (tmp_path / "model.keras").exists() == (BACKEND != "jax")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strategy": "mirrored"}, rf"keras\.distribution.*strategy='mirrored', {HERE}"),
        ({"strategy": object()}, rf"keras\.distribution.*strategy=<object .*{HERE}"),
        ({"flow_regularizer": 1.0}, f"TensorFlow backend.*flow_regularizer=1.0, {HERE}"),
    ],
)
def test_setting_that_needs_tensorflow_is_refused(setting, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Experiment(**setting, run_dir=tmp_path)


def test_several_workers_are_refused(monkeypatch, tmp_path):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match="strategy='auto', 2 workers in TF_CONFIG, KERAS_BACKEND"):
        Experiment(run_dir=tmp_path)
    with pytest.raises(ValueError, match="TF_CONFIG names 2 workers"):
        enable_multi_worker(keras.Sequential())


def test_backend_without_the_monitor_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(GradientMonitor, "_backends", ("tensorflow",))
    with pytest.raises(ValueError, match=rf"that `GradientMonitor` supports.*{HERE}"):
        Experiment(run_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gru", "--task", "adding", "--strategy", "mirrored"], HERE),
        (["bench", "page"], f"TensorFlow backend of Keras only. Received: {HERE}"),
    ],
)
def test_command_that_needs_tensorflow_prints_one_error(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
