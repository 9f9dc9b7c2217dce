"""Commands on CSV files and texts of users."""

import json
import math
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gradkeeper.training.cli import app

SIZE = ("--units", "3", "--batch-size", "4", "--epochs", "1", "--steps-per-epoch", "2")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Create a working directory with a series."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{day},{500 + 9 * math.sin(day):.2f}\n" for day in range(60))
    (tmp_path / "load.csv").write_text(f"day,load\n{rows}")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_series_is_trained_on_and_predicted_in_a_fresh_process(work):
    series = ("--csv", "load.csv", "--target", "load", "--window", 8)
    done = run("train", "gru", *series, "--option", 'features=["load"]', *SIZE, "--run-dir", "run")
    assert done.exit_code == 0, done.output
    assert "60 rows; target load; inputs load; not used: day" in done.output
    (work / "load.csv").rename(work / "new.csv")
    command = "from gradkeeper.training.cli import main; main()"
    predicted = subprocess.run(
        [sys.executable, "-c", command, "predict", "run", "--csv", "new.csv"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = predicted.stdout.splitlines()
    assert lines[0] == "row,load+1"
    assert len(lines) == 1 + 60 - 7
    assert all(450 < float(line.split(",")[1]) < 550 for line in lines[1:])


def test_models_are_compared_on_a_text(work):
    (work / "my.txt").write_text("The reader reads this again. " * 6)
    place = ("--length", 5, "--run-dir", "both")
    done = run("compare", "gru", "--text", "my.txt", *SIZE, *place)
    assert done.exit_code == 0, done.output
    (config, _) = [json.loads(path.read_text()) for path in sorted(work.glob("both/*/config.json"))]
    assert config["task"] == "text_file"
    assert config["task_options"] == {"file": str(work / "my.txt"), "length": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gru", "--csv", "load.csv"], "requires options. Missing: target"),
        (["train", "gru", "--csv", "none.csv", "--target", "load"], "file='"),
        (["train", "gru", "--csv", "load.csv", "--text", "a"], "either `--text` or `--csv`"),
        (["train", "gru", "--csv", "load.csv", "--target", "lod"], "Did you mean 'load'?"),
        (["compare", "gru", "--csv", "load.csv", "--target", "lod"], "Did you mean 'load'?"),
        (["train", "gru", "--target", "load"], "use `--text`, or `--csv` with `--target`"),
        (["train", "gru", "--task", "adding", "--window", "3"], "'adding' does not accept"),
        (["predict", "none", "--csv", "load.csv"], "Not a run directory"),
        (["generate", "none", "--prompt", "a"], "Not a run directory"),
    ],
)
def test_bad_input_is_one_message_and_leaves_no_file(arguments, message, work):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert [path.name for path in work.iterdir()] == ["load.csv"]
