"""Experiments: written files, repeatability, interruption, resuming and invalid input."""

import json
import shutil

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import GradientHistory, gradient_flow
from gradkeeper.training import Experiment, Result, load_task
from gradkeeper.training.experiment.experiment import build_model
from gradkeeper.training.experiment.run_directory import RunDirectory, write_json
from gradkeeper.training.reporting.reports import write_run_report

pytestmark = pytest.mark.usefixtures("undrawn")

SEED = 3
WRITTEN = (
    "config.json",
    "status.json",
    "metrics.csv",
    "findings.json",
    "model.keras",
    "checkpoints/best.keras",
    "report.html",
    "loss.png",
    "gradients.png",
)
COMPARED = ("epoch", "step", "loss", "val_loss", "grad_norm", "grad_norm_applied", "clip_fraction")


class InterruptAt(keras.callbacks.Callback):
    """Raise KeyboardInterrupt in one train step of one epoch, as Ctrl-C does."""

    def __init__(self, epoch, step):
        super().__init__()
        self.at = epoch, step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def clipped(small):
    return {**small, "global_clipnorm": 0.1, "seed": SEED}


@pytest.fixture(scope="module")
def finished(clipped, tmp_path_factory):
    """Return a run of 3 epochs of 4 steps."""
    return Experiment(**clipped, run_dir=tmp_path_factory.mktemp("runs") / "one").run(verbose=0)


@pytest.fixture(scope="module")
def flowing(finished, tmp_path_factory):
    """Return a run with the configuration of `finished`, with recorded gradients through time."""
    place = tmp_path_factory.mktemp("runs") / "flow"
    return Experiment.from_config(finished.run_dir, flow=True, run_dir=place).run(verbose=0)


def assert_equal_flows(one, other):
    assert list(one) == list(other)
    for epochs, flow in one.items():
        assert flow.loss == other[epochs].loss
        for state, expected in zip(flow, other[epochs], strict=True):
            assert (state.layer, state.state) == (expected.layer, expected.state)
            np.testing.assert_array_equal(state.norms, expected.norms)


def assert_equal_runs(one, other):
    for name in COMPARED:
        assert one.metrics[name] == other.metrics[name], name
    assert one.history.variables == other.history.variables
    np.testing.assert_array_equal(one.history.steps, other.history.steps)
    np.testing.assert_array_equal(one.history.norms, other.history.norms)


@pytest.mark.slow
def test_files_of_a_run(finished, flowing):
    for name in WRITTEN:
        assert (finished.run_dir / name).stat().st_size > 0, name
    assert GradientHistory.load(finished.run_dir / "gradients").steps.tolist() == list(range(12))
    assert json.loads((finished.run_dir / "status.json").read_text())["status"] == "finished"
    directory = RunDirectory(flowing.run_dir)
    named = {path for path in vars(directory).values() if path != directory.path}
    assert {path.name for path in named if path.exists()} >= {
        path.name for path in flowing.run_dir.iterdir()
    }


def test_report_names_the_source_of_the_recipe(finished, tmp_path):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    sources = {"units": "the paper", "learning_rate": "the paper", "epochs": "gradkeeper"}
    write_json(directory.config, {**finished.config, "sources": sources})
    write_run_report(Result.load(directory.path))
    text = directory.report.read_text(encoding="utf-8")
    assert "units, learning_rate: the paper; epochs: gradkeeper" in text


def test_result(finished):
    assert finished.status == "finished"
    assert finished.metrics["step"] == [4, 8, 12]
    assert finished.final_loss == finished.metrics["val_loss"][-1]
    assert finished.baseline == pytest.approx(1 / 6)
    assert finished.clip_fraction > 0
    assert finished.largest_norm == finished.history.global_norm.max()
    assert finished.nonfinite_step is None
    assert finished.time_per_step > 0
    model = keras.saving.load_model(finished.run_dir / "model.keras")
    assert finished.parameters == model.count_params()


def test_equal_configurations_give_equal_runs_also_with_flow(finished, flowing):
    assert {**flowing.config, "flow": False} == finished.config
    assert_equal_runs(flowing, finished)


@pytest.mark.slow
@pytest.mark.eager
def test_another_seed_gives_another_run(finished, tmp_path):
    other = Experiment.from_config(
        finished.config, seed=4, epochs=1, steps_per_epoch=1, run_dir=tmp_path / "other"
    ).run(verbose=0)
    assert other.history.loss[0] != finished.history.loss[0]


@pytest.mark.slow
def test_interrupted_and_finished_runs_are_resumed_as_if_uninterrupted(flowing, clipped, tmp_path):
    place = {"run_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        Experiment(
            **{**clipped, "epochs": 2}, flow=True, **place, callbacks=[InterruptAt(1, 2)]
        ).run(verbose=0)
    stopped = Result.load(place["run_dir"])
    assert stopped.status == "interrupted"
    assert stopped.metrics["loss"] == flowing.metrics["loss"][:1]
    assert stopped.history.steps.tolist() == list(range(7))
    assert list(stopped.flows) == [0, 1]
    for name in WRITTEN:
        assert (place["run_dir"] / name).exists(), name
    keras.saving.load_model(place["run_dir"] / "model.keras")

    resumed = Experiment.from_config(place["run_dir"], **place, resume=True).run(verbose=0)
    assert resumed.status == "finished"
    assert resumed.metrics["loss"] == flowing.metrics["loss"][:2]
    longer = Experiment.from_config(place["run_dir"], **place, resume=True, epochs=3)
    resumed = longer.run(verbose=0)
    assert_equal_runs(resumed, flowing)
    assert_equal_flows(resumed.flows, flowing.flows)


def test_flows_of_a_run(finished, flowing):
    assert list(flowing.flows) == [0, 1, 2, 3]
    assert flowing.reach is flowing.flows[3].states[0]
    assert flowing.reach.norms.shape == (6, 32)
    assert (finished.flows, finished.reach) == ({}, None)
    page = (flowing.run_dir / "report.html").read_text(encoding="utf-8")
    assert str(flowing.reach) in page
    assert "Gradient through time after 3 epochs" in page


def test_last_flow_is_that_of_the_trained_model(flowing):
    model = keras.saving.load_model(flowing.run_dir / "model.keras")
    data = load_task("adding", length=6, data_dir=flowing.config["data_dir"], seed=SEED)
    again = gradient_flow(model, *next(iter(data.train_dataset(32))))
    assert again.loss == pytest.approx(flowing.flows[3].loss, rel=1e-6)
    np.testing.assert_allclose(again.states[0].norms, flowing.reach.norms, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.eager
def test_failure_is_recorded_and_raised(small, tmp_path):
    class Fault(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        Experiment(**small, run_dir=tmp_path / "run", callbacks=[Fault()]).run(verbose=0)
    failed = Result.load(tmp_path / "run")
    assert failed.status == "failed"
    assert failed.history.steps.tolist() == [0, 1, 2, 3]


def test_report_of_a_killed_run(finished, tmp_path):
    """Load a run without status and findings, which has only files written during training."""
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("config.json", "metrics.csv", "gradients"):
        (killed / name).symlink_to(finished.run_dir / name)
    result = Result.load(killed)
    assert (result.status, result.baseline) == ("running", None)
    directory = write_run_report(result)
    assert "running, 3 epochs" in directory.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("seq2seq_attention", "adding", r"the head 'regression', which 'seq2seq_attention'.*gru"),
        ("gru", "reverse", "the head 'sequence_to_sequence', .*one of: seq2seq_attention. Rec"),
    ],
)
def test_model_without_the_head_is_refused_before_writing(model, task, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Experiment(model, task, data_dir=tmp_path, run_dir=tmp_path / "run").run(verbose=0)
    assert not list(tmp_path.iterdir())


def test_model_options_override_those_of_the_task(tmp_path):
    (tmp_path / "names.txt").write_text("ada\nemmy\nkurt\n")
    task = load_task("delimited_text", file=tmp_path / "names.txt")
    options = {"embedding_units": 2, "mask_zero": False}
    config = Experiment("gru", task.name, model_options=options, units=4).config
    embedding = build_model(config, task, steps_per_epoch=1).get_layer("embedding")
    assert (embedding.output_dim, embedding.mask_zero) == (2, False)


def test_existing_run_is_refused(finished, small):
    with pytest.raises(FileExistsError, match=r"--overwrite.*--resume.*Received: run_dir="):
        Experiment(**small, run_dir=finished.run_dir).run(verbose=0)


def test_folder_of_other_files_is_never_overwritten(small, tmp_path):
    (tmp_path / "thesis.tex").write_text("two years of work")
    with pytest.raises(FileExistsError, match=r"does not contain config\.json"):
        Experiment(**small, run_dir=tmp_path, overwrite=True).run(verbose=0)
    assert (tmp_path / "thesis.tex").exists()


def test_invalid_task_options_do_not_delete_the_earlier_run(finished, small):
    bad = Experiment(**{**small, "task_options": {"length": 0}}, run_dir=finished.run_dir,
                     overwrite=True)  # fmt: skip
    with pytest.raises(ValueError, match="length=0"):
        bad.run(verbose=0)
    assert (finished.run_dir / "model.keras").exists()


def test_unwritable_run_directory_is_refused_before_training(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"not writable.*Received: run_dir=.*file/run"):
        Experiment(**small, run_dir=tmp_path / "file" / "run").run(verbose=0)


def test_an_epoch_of_part_of_an_execution_is_refused_before_writing(small, tmp_path):
    settings = {**small, "steps_per_epoch": 5, "steps_per_execution": 2}
    with pytest.raises(ValueError, match=r"a multiple .*steps_per_epoch=5, steps_per_execution=2"):
        Experiment(**settings, run_dir=tmp_path / "run").run(verbose=0)
    assert not (tmp_path / "run").exists()


def test_only_a_run_is_resumed(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="Not a run directory"):
        Experiment(**small, run_dir=tmp_path / "none", resume=True).run(verbose=0)


def test_resuming_with_another_configuration_is_refused(finished, clipped):
    changed = Experiment(**{**clipped, "units": 5}, run_dir=finished.run_dir, resume=True)
    with pytest.raises(ValueError, match=r"Received: units=5 \(was 4\)"):
        changed.run(verbose=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "one kind of clipping.*clipnorm=1.0, clipvalue=1.0"),
        ({"overwrite": True}, "Received: run_dir=None"),
        ({"optimizer_options": {"epsilon": "abc"}}, "epsilon='abc'"),
        (
            {"schedule": "cosine", "optimizer_options": {"warmup_steps": "abc"}},
            "warmup_steps='abc'",
        ),
        ({"overwrite": True, "resume": True, "run_dir": "x"}, "either `overwrite`.*or `resume`"),
    ],
)
def test_refused_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**bad).run(verbose=0)
