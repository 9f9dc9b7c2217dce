"""Resuming with changed data, in another working directory, after the end and after a failure."""

import os
import shutil

import pytest

from gradkeeper.training import Experiment, Result

TEXT = "The reader reads this again. " * 8


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


def test_a_relative_path_is_found_from_another_working_directory(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = resume(work, epochs=2).run(verbose=0)
    assert result.metrics["step"] == [2, 4]
    assert result.config["task_options"]["file"] == str(work / "my.txt")


def test_nothing_to_do_is_said_and_changes_no_file(work, capsys):
    before = files_of(work / "run")
    (work / "my.txt").unlink()
    result = resume(work).run()
    assert "Nothing to do: all 1 epochs are done." in capsys.readouterr().out
    assert result.status == "finished"
    assert files_of(work / "run") == before


def test_changed_data_are_refused_and_change_no_file(work):
    before = files_of(work / "run")
    (work / "my.txt").write_text(TEXT + "And again.")
    with pytest.raises(ValueError, match=r"data have changed.*--allow-changed-data.*SHA-256"):
        resume(work, epochs=2).run(verbose=0)
    assert files_of(work / "run") == before


def test_changed_data_may_be_allowed(work):
    digest = Result.load(work / "run").config["data_digest"]
    (work / "my.txt").write_text(TEXT + "reads this")
    result = resume(work, epochs=2, allow_changed_data=True).run(verbose=0)
    assert result.metrics["step"] == [2, 4]
    assert result.config["data_digest"] != digest


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_failed_attempt_leaves_a_finished_run_finished(work):
    before = files_of(work / "run")
    (work / "my.txt").write_text(TEXT + "ÄÖÜ")  # the larger vocabulary changes the weight shapes
    with pytest.raises(ValueError, match="shape"):
        resume(work, epochs=2, allow_changed_data=True).run(verbose=0)
    assert files_of(work / "run") == before
    assert Result.load(work / "run").status == "finished"


def test_paths_of_a_configuration_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"files": "part-*.tfrecord", "evaluation_files": "../test.tfrecord", "features": 2}
    config = Experiment("gru", "tfrecord", task_options=options, data_dir="data").config
    assert config["data_dir"] == str(tmp_path / "data")
    assert config["task_options"]["files"] == str(tmp_path / "part-*.tfrecord")
    assert config["task_options"]["evaluation_files"] == str(tmp_path.parent / "test.tfrecord")
    again = Experiment.from_config({**config, "data_digest": "0"}).config
    assert again == config
