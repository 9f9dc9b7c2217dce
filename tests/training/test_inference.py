"""Predictions and generated text from a run directory, without the training files."""

import csv

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from gradkeeper.training import Experiment, generate, predict
from gradkeeper.training.cli import app

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("undrawn")]

SMALL = {"units": 3, "batch_size": 4, "epochs": 1, "steps_per_epoch": 2}


def train(folder, text, **options):
    """Train a run and delete its data file."""
    file = folder / "data"
    file.write_text(text)
    options["task_options"] = {**options["task_options"], "file": str(file)}
    Experiment("gru", **SMALL, **options, run_dir=folder / "run").run(verbose=0)
    file.unlink()
    return folder / "run"


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    rows = "".join(f"d{row},{500 + row % 5},{row % 3}\n" for row in range(40))
    options = {"target": "load", "window": 4, "horizon": 2, "missing": "drop"}
    folder = tmp_path_factory.mktemp("series")
    return train(folder, f"date,load,heat\n{rows}", task="csv", task_options=options)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    text = "x,kind\n" + "".join(f"{row},{'ab'[row % 2]}\n" for row in range(20))
    return train(tmp_path_factory.mktemp("rows"), text, task="csv", task_options={"target": "kind"})


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    options = {"length": 5, "preprocessing": "letters"}
    content = "The word reads it again. " * 8
    return train(tmp_path_factory.mktemp("text"), content, task="text_file", task_options=options)


@pytest.fixture
def other(tmp_path):
    """Write a file with other rows, another order of columns and no date."""
    file = tmp_path / "other.csv"
    rows = "".join(f"{row % 3},{510 + row}\n" for row in range(8))
    file.write_text(f"heat,load\n{rows}")
    return file


@pytest.mark.slow
def test_predictions_in_the_units_of_the_target(series, other):
    found = predict(series, other)
    assert found.rows == [4, 5, 6, 7, 8]
    assert list(found.values) == ["load+1", "load+2"]
    load, heat = 510.0 + np.arange(8), np.arange(8) % 3
    known = np.arange(28)  # the training rows
    scaled = [
        (each - of.mean()) / of.std() for each, of in ((load, 500.0 + known % 5), (heat, known % 3))
    ]
    inputs = np.stack([np.stack(scaled, 1)[row : row + 4] for row in range(5)]).astype("float32")
    outputs = keras.saving.load_model(series / "model.keras").predict(inputs, verbose=0)
    expected = outputs * (known % 5).std() + (500.0 + known % 5).mean()
    np.testing.assert_allclose(np.stack(list(found.values.values()), 1), expected, rtol=1e-5)


def test_windows_with_missing_values_have_no_prediction(series, other):
    lines = other.read_text().splitlines()
    lines[2] = "1,"
    other.write_text("\n".join(lines))
    found = predict(series, other)
    assert found.rows == [6, 7, 8]
    assert found.report == "1 of 8 in 'load' (first in line 3)"


def test_predicted_classes(rows, tmp_path):
    (tmp_path / "x.csv").write_text("x\n3\n4\n")
    found = predict(rows, tmp_path / "x.csv", best=True)
    assert found.rows == [1, 2]
    assert set(found.values["kind"]) <= {"a", "b"}
    assert all(0.5 <= share <= 1 for share in found.values["probability"])


@pytest.mark.slow
def test_generate_preprocesses_the_prompt(text):
    first, again = (generate(text, "Rëads it", length=7, seed=1) for _ in range(2))
    assert first == again
    assert first.startswith("reads it")
    assert len(first) == len("reads it") + 7


@pytest.mark.slow
def test_generate_stops_at_the_end_of_a_short_text(tmp_path):
    run = train(tmp_path, "ada\nemmy\nkurt\nal\n" * 4, task="delimited_text", task_options={})
    found = generate(run, "a", length=30, temperature=1.0, seed=0)
    assert found.startswith("a")
    assert set(found) <= set("adaemmykurtal")
    assert len(found) <= 31


def run(*arguments, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_predict_command(series, other, tmp_path, monkeypatch):
    printed = run("predict", series, "--csv", other, monkeypatch=monkeypatch)
    assert printed.exit_code == 0, printed.output
    out = ("--out", tmp_path / "out.csv")
    assert run("predict", series, "--csv", other, *out, monkeypatch=monkeypatch).exit_code == 0
    assert out[1].read_text() == printed.stdout
    for place in (tmp_path, tmp_path / "none" / "out.csv"):
        refused = run("predict", series, "--csv", other, "--out", place, monkeypatch=monkeypatch)
        assert refused.exit_code == 2
        assert "must be a file in an existing folder" in refused.stderr
    table = list(csv.DictReader(printed.stdout.splitlines()))
    assert [row["row"] for row in table] == ["4", "5", "6", "7", "8"]
    assert float(table[0]["load+1"]) == predict(series, other).values["load+1"][0]


def test_generate_command(text, monkeypatch):
    options = ("--prompt", "reads", "--length", "9", "--temperature", "0.8", "--seed", "2")
    done = run("generate", text, *options, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    expected = generate(text, "reads", length=9, temperature=0.8, seed=2)
    assert done.stdout == f"{expected}\n"


def test_run_on_another_task_is_refused(series, text, other, tmp_path):
    with pytest.raises(ValueError, match=r"needs a run on a CSV file.*the task 'text_file'"):
        predict(text, other)
    with pytest.raises(ValueError, match=r"needs a run on a text.*the task 'csv'"):
        generate(series, "a")
    with pytest.raises(FileNotFoundError, match="Not a run directory"):
        generate(tmp_path, "a")


def test_unknown_columns_and_characters_are_refused(series, text, other):
    with pytest.raises(ValueError, match=r"vocabulary lacks\. .*Received: 'qu'"):
        generate(text, "quote")
    with pytest.raises(ValueError, match=r"Received: prompt=''"):
        generate(text, "")
    other.write_text("heat,lead\n1,2\n")
    with pytest.raises(ValueError, match=r"Did you mean 'lead'.*Received: column='load', file="):
        predict(series, other)
    other.write_text("heat,load\n1,2\n")
    with pytest.raises(ValueError, match=r"A window needs 4 rows\. Received: 1 rows"):
        predict(series, other)
