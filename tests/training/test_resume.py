"""Resuming after a kill at any moment gives the result of an uninterrupted training."""

import subprocess
import sys

import h5py
import keras
import kill_and_resume
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper import zoo
from gradkeeper.training import Result
from gradkeeper.training.backup import EpochBackup

COMPARED = ("epoch", "step", "loss", "val_loss", "grad_norm", "grad_norm_applied", "clip_fraction")


@pytest.mark.slow
def test_a_run_killed_ten_times_is_the_undisturbed_run(tmp_path):
    done = subprocess.run(
        [sys.executable, kill_and_resume.__file__, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, other = Result.load(tmp_path / "undisturbed"), Result.load(tmp_path / "killed")
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


def test_the_seeds_of_dropout_and_zoneout_go_on(tmp_path):
    whole, parts, rest = compiled(), compiled(), compiled()
    fit(whole, tmp_path / "whole", epochs=3)
    fit(parts, tmp_path / "parts", epochs=2)
    fit(rest, tmp_path / "parts", epochs=3)
    for a, b in zip(whole.variables, rest.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_backup_is_one_file_that_keras_can_load(tmp_path):
    model, other = compiled(), compiled()
    fit(model, tmp_path, epochs=2)
    (path,) = tmp_path.iterdir()
    assert path.name == "latest.weights.h5"
    assert EpochBackup(tmp_path).epoch == 2
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_kill_left_half_written_is_overwritten(tmp_path):
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


def test_who_does_not_write_reads_all_the_same(tmp_path):
    model, other = compiled(), compiled()
    fit(model, tmp_path, epochs=1)
    before = (tmp_path / "latest.weights.h5").stat().st_mtime_ns
    backup = EpochBackup(tmp_path, writes=False)
    backup.set_model(other)
    backup.on_train_begin()
    backup.on_epoch_end(1)
    assert (tmp_path / "latest.weights.h5").stat().st_mtime_ns == before
    np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])


def test_no_backup_is_there_before_every_worker_has_come_so_far(tmp_path, monkeypatch):
    epochs = []
    waits = "gradkeeper.training.backup.wait_for_all"
    monkeypatch.setattr(waits, lambda strategy: epochs.append(EpochBackup(tmp_path).epoch))
    kept = EpochBackup(tmp_path, strategy=tf.distribute.get_strategy())
    fit(compiled(), tmp_path, epochs=2, callbacks=[kept])
    assert epochs == [0, 1]
    assert kept.epoch == 2
