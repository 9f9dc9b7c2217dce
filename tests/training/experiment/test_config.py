"""`ExperimentConfig`: defaults, JSON round trip, earlier files and refused settings."""

import dataclasses
import json
from pathlib import Path

import pytest

from gradkeeper.training import Experiment, ExperimentConfig

FORMER = Path(__file__).parents[2] / "former_run" / "run"


def test_json_round_trip():
    options = {"model_options": {"dropout": 0.1}, "task_options": {"length": 7}}
    config = ExperimentConfig("lstm", "copying", clipnorm=1, flow=True, **options)
    assert ExperimentConfig.from_dict(config.to_dict()) == config
    assert ExperimentConfig.from_json(config.to_json()) == config
    tuples = ExperimentConfig(model_options={"sizes": (1, 2)})
    assert ExperimentConfig.from_json(tuples.to_json()) == tuples


def test_defaults_of_the_zoo_entry():
    config = ExperimentConfig()
    assert (config.model, config.task, config.units, config.num_layers) == ("gru", "adding", 128, 1)
    assert ExperimentConfig("irnn").learning_rate == 1e-4
    assert ExperimentConfig("irnn", optimizer="sgd").learning_rate == 0.01
    config = ExperimentConfig("residual_lstm")
    assert (config.optimizer, config.num_layers, config.units) == ("adam", 4, 128)
    assert (config.global_clipnorm, config.model_options) == (None, {})


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().units = 3


def test_config_of_a_former_run_loads():
    stored = json.loads((FORMER / "config.json").read_text())
    for path in (FORMER, FORMER / "config.json"):
        config = ExperimentConfig.load(path)
        assert config.to_dict() == {**stored, "task_options": config.task_options}


def test_missing_settings_get_defaults_and_the_digest_is_ignored():
    stored = {"model": "gru", "task": "adding", "data_digest": "0"}
    assert ExperimentConfig.from_dict(stored) == ExperimentConfig("gru", "adding")


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"files": "part-*.tfrecord", "evaluation_files": "../test.tfrecord", "features": 2}
    config = ExperimentConfig("gru", "tfrecord", task_options=options, data_dir="data")
    assert config.data_dir == str(tmp_path / "data")
    assert config.task_options["files"] == str(tmp_path / "part-*.tfrecord")
    assert config.task_options["evaluation_files"] == str(tmp_path.parent / "test.tfrecord")
    assert ExperimentConfig.from_dict(config.to_dict()) == config


def test_experiment_from_config_and_from_keywords():
    config = ExperimentConfig("lstm", "copying", units=3, strategy="one_device")
    keywords = Experiment("lstm", "copying", units=3, strategy="one_device").config
    assert Experiment(config).config == keywords == config
    changed = Experiment.from_config(config.to_dict(), model="gru", epochs=2).config
    assert (changed.model, changed.units, changed.epochs) == ("gru", 3, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "Did you mean 'epochs'.*Received: setting='epoch'"),
        ({"model": "grew"}, "Did you mean .*'gru'.*Received: model='grew'"),
        ({"task": "added"}, "Did you mean 'adding'.*Received: task='added'"),
        ({"optimizer": "adm"}, "Did you mean 'adam'.*Received: optimizer='adm'"),
        ({"schedule": "cosin"}, "Received: schedule='cosin'"),
        ({"strategy": "mirored"}, "Did you mean 'mirrored'.*Received: strategy='mirored'"),
        ({"clipnorm": -1.0}, "Received: clipnorm=-1.0"),
        ({"learning_rate": "fast"}, "Received: learning_rate='fast'"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"steps_per_epoch": 0}, "Received: steps_per_epoch=0"),
        ({"units": 2.5}, "Received: units=2.5"),
        ({"seed": -1}, "at least 0. Received: seed=-1"),
        ({"flow": "yes"}, "Choose one of: False, True. Received: flow='yes'"),
        ({"jit_compile": "never"}, "Received: jit_compile='never'"),
        ({"flow_regularizer": -1}, "Received: flow_regularizer=-1"),
        ({"data_dir": 3}, "must be a path. Received: data_dir=3"),
        ({"task_options": [3]}, r"must be a mapping. Received: task_options=\[3\]"),
        ({"model_options": {"activation": print}}, "JSON-serializable"),
        ({"model_options": {"units": 3}}, "not allowed in `model_options`.*'units': 3"),
        ({"optimizer_options": {"clipnorm": 1}}, "not allowed in `optimizer_options`"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ExperimentConfig.from_dict({"model": "gru", "task": "adding", **settings})
    with pytest.raises(ValueError, match=message):
        Experiment(**settings)


def test_missing_model_or_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Missing: model. Received: task"):
        ExperimentConfig.from_dict({"task": "adding"})
    with pytest.raises(FileNotFoundError, match="Not a run directory"):
        ExperimentConfig.load(tmp_path)
