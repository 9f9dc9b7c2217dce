"""Resuming: the backup, a run killed at any moment, and changed data."""

import os
import shutil
import subprocess
import sys

import h5py
import keras
import kill_and_resume
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper import zoo
from gradkeeper.training import Experiment, Result
from gradkeeper.training.experiment.resumption import EpochBackup

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("undrawn")]

COMPARED = ("epoch", "step", "loss", "val_loss", "grad_norm", "grad_norm_applied", "clip_fraction")

TEXT = "The reader reads this again. " * 8


@pytest.mark.slow
def test_run_killed_several_times_equals_an_uninterrupted_run(tmp_path):
    done = subprocess.run(
        [sys.executable, kill_and_resume.__file__, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, other = Result.load(tmp_path / "uninterrupted"), Result.load(tmp_path / "killed")
    assert (one.status, other.status) == ("finished", "finished")
    assert one.metrics["epoch"] == list(range(kill_and_resume.EPOCHS))
    for name in COMPARED:
        assert one.metrics[name] == other.metrics[name], name
    np.testing.assert_array_equal(one.history.steps, other.history.steps)
    np.testing.assert_array_equal(one.history.norms, other.history.norms)
    np.testing.assert_array_equal(one.history.loss, other.history.loss)
    assert [each.to_dict() for each in one.findings] == [each.to_dict() for each in other.findings]
    for name in ("model.keras", "checkpoints/best.keras"):
        pairs = zip(weights_in(one.run_dir / name), weights_in(other.run_dir / name), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b, err_msg=name)


def weights_in(path):
    return keras.saving.load_model(path).get_weights()


def compiled():
    keras.utils.set_random_seed(0)
    options = {"input_shape": (3, 2), "output_units": 1, "units": 2, "dropout": 0.5}
    model = zoo.create_model("zoneout_gru", **options)
    model.compile("adam", "mse")
    return model


def fit(model, folder, **options):
    x = np.random.default_rng(0).normal(size=(8, 3, 2))
    backup = EpochBackup(folder)
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": [backup], **options}
    model.fit(x, x[:, 0, :1], initial_epoch=backup.epoch, **options)


@pytest.mark.slow
def test_backup_restores_random_seeds(tmp_path):
    whole, parts, rest = compiled(), compiled(), compiled()
    fit(whole, tmp_path / "whole", epochs=3)
    fit(parts, tmp_path / "parts", epochs=2)
    fit(rest, tmp_path / "parts", epochs=3)
    for a, b in zip(whole.variables, rest.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_backup_is_one_file_that_keras_loads(tmp_path):
    model, other = compiled(), compiled()
    fit(model, tmp_path, epochs=2)
    (path,) = tmp_path.iterdir()
    assert path.name == "latest.weights.h5"
    assert EpochBackup(tmp_path).epoch == 2
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unfinished_backup_is_overwritten(tmp_path):
    (tmp_path / "unfinished.weights.h5").write_bytes(b"half")
    model = compiled()
    fit(model, tmp_path, epochs=1)
    assert EpochBackup(tmp_path).epoch == 1
    with h5py.File(tmp_path / "latest.weights.h5") as file:
        assert len(file["gradkeeper_state"]) == 1  # the seed of dropout and zoneout


def test_weights_of_another_callback_are_refused(tmp_path):
    compiled().save_weights(tmp_path / "latest.weights.h5")
    with pytest.raises(ValueError, match=r"another callback wrote it.*Received: .*latest"):
        _ = EpochBackup(tmp_path).epoch


def test_process_that_does_not_write_reads_the_backup(tmp_path):
    model, other = compiled(), compiled()
    fit(model, tmp_path, epochs=1)
    before = (tmp_path / "latest.weights.h5").stat().st_mtime_ns
    backup = EpochBackup(tmp_path, writes=False)
    backup.set_model(other)
    backup.on_train_begin()
    backup.on_epoch_end(1)
    assert (tmp_path / "latest.weights.h5").stat().st_mtime_ns == before
    np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])


def test_backup_is_written_after_all_workers_finish_the_epoch(tmp_path, monkeypatch):
    epochs = []
    waits = "gradkeeper.training.experiment.resumption.wait_for_all"
    monkeypatch.setattr(waits, lambda strategy: epochs.append(EpochBackup(tmp_path).epoch))
    kept = EpochBackup(tmp_path, strategy=tf.distribute.get_strategy())
    fit(compiled(), tmp_path, epochs=2, callbacks=[kept])
    assert epochs == [0, 1]
    assert kept.epoch == 2


def files_of(run):
    """Return every file of a run with its content and modification time."""
    paths = [path for path in run.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a folder with a text and a finished run, which was trained with a relative path."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "my.txt").write_text(TEXT)
    size = {"units": 3, "batch_size": 4, "epochs": 1, "steps_per_epoch": 2}
    options = {"file": "my.txt", "length": 5}
    here = os.getcwd()
    try:
        os.chdir(folder)
        Experiment("gru", "text_file", task_options=options, run_dir="run", **size).run(verbose=0)
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def work(finished):
    """Return the folder of `finished`; its files are restored after the test."""
    kept = finished.with_name(f"{finished.name}-kept")
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    kept.rename(finished)


def resume(work, **options):
    place = {"run_dir": work / "run", "resume": True}
    return Experiment.from_config(work / "run", **place, **options)


@pytest.mark.slow
def test_relative_data_path_from_another_working_directory(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = resume(work, epochs=2).run(verbose=0)
    assert result.metrics["step"] == [2, 4]
    assert result.config["task_options"]["file"] == str(work / "my.txt")


def test_finished_run_prints_nothing_to_do_and_changes_no_file(work, capsys):
    before = files_of(work / "run")
    (work / "my.txt").unlink()
    result = resume(work).run()
    assert "Nothing to do: 1 epoch done." in capsys.readouterr().out
    assert result.status == "finished"
    assert files_of(work / "run") == before


def test_changed_data_are_refused_and_change_no_file(work):
    before = files_of(work / "run")
    (work / "my.txt").write_text(TEXT + "And again.")
    with pytest.raises(
        ValueError, match=r"(?s)data have changed.*--allow-changed-data.*my\.txt with SHA-256"
    ):
        resume(work, epochs=2).run(verbose=0)
    assert files_of(work / "run") == before


@pytest.mark.slow
def test_changed_data_are_allowed_by_an_option(work):
    digest = Result.load(work / "run").config["data_digest"]
    (work / "my.txt").write_text(TEXT + "reads this")
    result = resume(work, epochs=2, allow_changed_data=True).run(verbose=0)
    assert result.metrics["step"] == [2, 4]
    assert result.config["data_digest"] != digest


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_failed_resumption_changes_no_file(work):
    before = files_of(work / "run")
    (work / "my.txt").write_text(TEXT + "ÄÖÜ")  # the larger vocabulary changes the weight shapes
    with pytest.raises(ValueError, match="shape"):
        resume(work, epochs=2, allow_changed_data=True).run(verbose=0)
    assert files_of(work / "run") == before
    assert Result.load(work / "run").status == "finished"


@pytest.mark.slow
def test_finished_run_stays_finished_if_its_first_further_epoch_fails(work):
    names = ("config.json", "status.json", "metrics.csv", "model.keras", "report.html")
    before = {name: (work / "run" / name).read_bytes() for name in names}

    def fail(batch, logs):
        raise RuntimeError("the second batch")

    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=fail)]
    with pytest.raises(RuntimeError, match="the second batch"):
        resume(work, epochs=3, callbacks=callbacks).run(verbose=0)
    assert {name: (work / "run" / name).read_bytes() for name in names} == before
    assert resume(work, epochs=2).run(verbose=0).metrics["step"] == [2, 4]
