"""`gradkeeper train` and `gradkeeper report`."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradkeeper.training import ExperimentConfig, Result
from gradkeeper.training.cli import train

# A shell's background job ignores SIGINT, and its child processes inherit this.
MAIN = """
import signal
from gradkeeper.training.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
COMMAND = [sys.executable, "-c", MAIN]
SIZE = ("--units", "4", "--batch-size", "40", "--steps-per-epoch", "4")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Create a working directory with a series."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{day},{500 + 9 * math.sin(day):.2f}\n" for day in range(60))
    (tmp_path / "load.csv").write_text(f"day,load\n{rows}")
    return tmp_path


@pytest.fixture
def config_of(run, monkeypatch):
    """Return `config_of(*arguments)`: the configuration that `train` would train."""
    experiments = []
    monkeypatch.setattr(train, "_run", experiments.append)

    def config_of(*arguments):
        done = run("train", *arguments)
        assert done.exit_code == 0, done.output
        return experiments[-1].config

    return config_of


def test_every_setting_is_an_option(run):
    text = run("train", "--help").output
    for field in dataclasses.fields(ExperimentConfig):
        if field.name == "sources":
            continue
        name = {"model": "MODEL", "task_options": "--option"}.get(field.name)
        flag = name or f"--{field.name.replace('_', '-')}"
        assert (flag.removesuffix("s") if field.name.endswith("_options") else flag) in text


def test_settings_from_options(config_of):
    config = config_of(
        *("gru", "--task", "adding", "--length", 6, "--no-flow", "--jit-compile", "--seed", 3),
        *("--clipvalue", 0.5, "--model-option", "dropout=0.1", "--optimizer-option", "beta_1=0.8"),
    )
    assert config == ExperimentConfig(
        "gru",
        "adding",
        task_options={"length": 6},
        jit_compile=True,
        seed=3,
        clipvalue=0.5,
        model_options={"dropout": 0.1},
        optimizer_options={"beta_1": 0.8},
    )


@pytest.mark.parametrize("others", [[], ["--task", "delimited_text", "--option", "delimiter=."]])
def test_text_file(config_of, others, work):
    config = config_of("gru", "--text", "my.txt", *others)
    assert config.task == (others[1] if others else "text_file")
    delimiter = {"delimiter": "."} if others else {}
    assert config.task_options == {"file": str(work / "my.txt"), **delimiter}


@pytest.mark.slow
@pytest.mark.eager
def test_train_resume_and_report(run, tmp_path, small):
    place = ("--run-dir", tmp_path / "run", "--data-dir", small["data_dir"])
    clip = ("--global-clipnorm", "0.5", "--flow-regularizer", "2")
    command = ("train", "gru", "--task", "adding", "--length", 6, *SIZE, "--epochs", 1)
    done = run(*command, *clip, *place)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "run" / "report.html") in done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task_options"] == {"length": 6}
    assert (config["global_clipnorm"], config["flow_regularizer"]) == (0.5, 2.0)

    resumed = run("train", "--resume", "--epochs", 2, "--flow", *place)
    assert resumed.exit_code == 0, resumed.output
    assert Result.load(tmp_path / "run").metrics["step"] == [4, 8]

    pictures = ("report.html", "loss.png", "gradients.png", "flow.png", "flow-end.png")
    for name in pictures:
        (tmp_path / "run" / name).unlink()
    assert run("report", tmp_path / "run").exit_code == 0
    for name in pictures:
        assert (tmp_path / "run" / name).exists(), name


@pytest.mark.slow
def test_interrupted_training_ends_with_130_and_prints_how_to_resume(tmp_path, small):
    place = ["--run-dir", str(tmp_path / "run"), "--data-dir", str(small["data_dir"])]
    command = [
        *COMMAND,
        "train",
        "gru",
        "--task",
        "adding",
        "--length",
        "6",
        *SIZE,
        "--epochs",
        "100000",
        *place,
    ]
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


@pytest.mark.slow
@pytest.mark.eager
@pytest.mark.usefixtures("undrawn")
def test_names_with_brackets_are_printed_as_they_are(run, work):
    (work / "load.csv").write_text(
        (work / "load.csv").read_text().replace("load", "power [kW] [/s]", 1)
    )
    data = ("--csv", "load.csv", "--target", "power [kW] [/s]", "--window", 4)
    size = ("--units", 3, "--batch-size", 4, "--epochs", 1, "--steps-per-epoch", 2)
    done = run("train", "gru", *data, *size, "--run-dir", "out[a]")
    assert done.exit_code == 0, done.output
    assert "power [kW] [/s]" in done.output
    assert f"Report: {Path('out[a]') / 'report.html'}" in done.output.replace("\n", "")
    # Resuming takes the settings of the run.
    assert run("train", "gru", "--run-dir", "out[a]", "--resume").exit_code == 0


@pytest.mark.slow
@pytest.mark.eager
@pytest.mark.usefixtures("undrawn")
def test_series_is_trained_and_predicted_in_another_process(run, work):
    series = ("--csv", "load.csv", "--target", "load", "--window", 8)
    size = ("--units", 3, "--batch-size", 4, "--epochs", 1, "--steps-per-epoch", 2)
    done = run("train", "gru", *series, "--option", 'features=["load"]', *size, "--run-dir", "run")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gru", "--csv", "load.csv"], "requires options. Missing: target"),
        (["train", "gru", "--csv", "none.csv", "--target", "load"], "file='"),
        (["train", "gru", "--csv", "load.csv", "--text", "a"], "either `--text` or `--csv`"),
        (["train", "gru", "--csv", "load.csv", "--target", "lod"], "Did you mean 'load'?"),
        (["compare", "gru", "--csv", "load.csv", "--target", "lod"], "Did you mean 'load'?"),
        (["train", "gru", "--target", "load"], "use `--text`, or `--csv` with `--target`"),
        (["train", "gru", "--task", "adding", "--window", "3"], "'adding' takes the arguments"),
        (["predict", "none", "--csv", "load.csv"], "Not a run directory"),
        (["generate", "none", "--prompt", "a"], "Not a run directory"),
    ],
)
def test_invalid_input_is_one_message_and_leaves_no_file(run, arguments, message, work):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert [path.name for path in work.iterdir()] == ["load.csv"]
