"""`gradkeeper compare`."""

import json
from types import SimpleNamespace

import pytest

from gradkeeper.training import REMEDIES
from gradkeeper.training.cli.compare import models_of

SIZE = ("--length", "6", "--units", "4", "--batch-size", "40", "--steps-per-epoch", "4")


@pytest.fixture
def arguments_of(run, monkeypatch):
    """Return `arguments_of(*texts)`: the arguments that the command passes to `compare`."""
    calls = []

    def compare(models, **options):
        calls.append((models, options))
        return SimpleNamespace(table=str, files=[])

    monkeypatch.setattr("gradkeeper.training.compare", compare, raising=False)

    def arguments_of(*texts):
        done = run("compare", *texts)
        assert done.exit_code == 0, done.output
        return calls[-1]

    return arguments_of


@pytest.mark.slow
def test_compare_with_gradients_through_time(run, tmp_path, small):
    place = ("--run-dir", tmp_path / "both", "--data-dir", small["data_dir"])
    size = (*SIZE, "--epochs", 1)
    done = run("compare", "simple_rnn:clipnorm=1", "--task", "adding", *size, "--flow", *place)
    assert done.exit_code == 0, done.output
    assert "half-life" in done.output
    assert str(tmp_path / "both" / "flow.png") in done.output
    assert (tmp_path / "both" / "flow.png").stat().st_size > 10_000


def test_settings_and_clipping(arguments_of):
    models, options = arguments_of("gru", "lstm", "--task", "adding", *SIZE, "--clipnorm", 2)
    assert models == ["gru", "lstm"]
    assert options == {
        "task": "adding",
        "task_options": {"length": 6},
        "units": 4,
        "batch_size": 40,
        "steps_per_epoch": 4,
        "clippings": ({}, {"clipnorm": 2.0}),
        "name": "gru, lstm",
        "run_dir": None,
        "overwrite": False,
    }


def test_text_file(arguments_of):
    _, options = arguments_of("gru", "--text", "my.txt", "--length", 5)
    assert options["task"] == "text_file"
    assert options["task_options"] == {"file": "my.txt", "length": 5}


def test_variants_of_a_model():
    ones = {"class_name": "Constant", "config": {"value": 1}}
    texts = (
        "simple_rnn:recurrent_initializer=identity,activation=relu",
        f"gru:num_layers=2,bias_initializer={json.dumps(ones)},clipnorm=1",
    )
    simple, gru = models_of(texts).values()
    identity = {"recurrent_initializer": "identity", "activation": "relu"}
    assert simple == {"model": "simple_rnn", "model_options": identity}
    assert gru == {
        "model": "gru",
        "model_options": {"bias_initializer": ones},
        "num_layers": 2,
        "clipnorm": 1,
    }


def test_remedies(arguments_of):
    models, options = arguments_of("remedies", "gru", "--task", "adding")
    assert models == {**REMEDIES, "gru": {"model": "gru", "model_options": {}}}
    assert options["name"] == "remedies, gru"
