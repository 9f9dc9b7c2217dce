"""`ExperimentConfig`: defaults, JSON round trip, earlier files and refused settings."""

import dataclasses
import json
from pathlib import Path

import pytest

from gradkeeper import zoo
from gradkeeper.training import Experiment, ExperimentConfig
from gradkeeper.zoo.recipe import OfLength, Recipe

FORMER = Path(__file__).parents[2] / "former_run" / "run"


def test_json_round_trip():
    options = {"model_options": {"dropout": 0.1}, "task_options": {"length": 7}}
    config = ExperimentConfig("lstm", "copying", clipnorm=1, flow=True, **options)
    assert ExperimentConfig.from_dict(config.to_dict()) == config
    assert ExperimentConfig.from_json(config.to_json()) == config
    tuples = ExperimentConfig(model_options={"sizes": (1, 2)})
    assert ExperimentConfig.from_json(tuples.to_json()) == tuples


def test_defaults_without_a_recipe():
    config = ExperimentConfig(recipe="none")
    assert (config.model, config.task, config.units, config.num_layers) == ("gru", "adding", 128, 1)
    assert (config.optimizer, config.learning_rate, config.global_clipnorm) == ("adam", 1e-3, None)
    assert (config.batch_size, config.epochs, config.sources) == (50, 10, {})
    assert ExperimentConfig(optimizer="sgd", recipe="none").learning_rate == 0.01
    config = ExperimentConfig("residual_lstm", recipe="none")
    assert (config.num_layers, config.units, config.model_options) == (4, 128, {})
    assert ExperimentConfig.from_dict({"model": "irnn", "task": "adding"}).learning_rate == 1e-3


RECIPES = (
    Recipe(
        task="adding",
        task_options={"length": 200},
        model={"units": 3, "step_size": OfLength(6, -1), "damping": 2.0},
        training={
            "optimizer": "rmsprop",
            "learning_rate": 0.02,
            "optimizer_options": {"rho": 0.8},
            "schedule": "cosine",
            "clipnorm": 5.0,
            "batch_size": 20,
            "epochs": 4,
            "steps_per_epoch": 7,
        },
        source="the paper",
        own=("epochs", "units"),
    ),
    Recipe(task="copying", training={"optimizer": "sgd", "learning_rate": 0.5}),
)


@pytest.fixture
def recipes(monkeypatch):
    """Give the entry `co_rnn` two recipes."""
    info = dataclasses.replace(zoo.model_info("co_rnn"), recipes=RECIPES)
    monkeypatch.setattr(zoo, "model_info", lambda name: info)


@pytest.mark.usefixtures("recipes")
def test_recipe_of_the_task():
    config = ExperimentConfig("co_rnn", "adding")
    assert config.task_options == {"length": 200}
    assert (config.units, config.model_options) == (3, {"step_size": 0.03, "damping": 2.0})
    assert (config.optimizer, config.learning_rate, config.schedule) == ("rmsprop", 0.02, "cosine")
    assert (config.optimizer_options, config.clipnorm) == ({"rho": 0.8}, 5.0)
    assert (config.batch_size, config.epochs, config.steps_per_epoch) == (20, 4, 7)
    assert config.sources["learning_rate"] == config.sources["step_size"] == "the paper"
    assert config.sources["epochs"] == config.sources["units"] == "gradkeeper"
    assert ExperimentConfig.from_json(config.to_json()) == config


@pytest.mark.usefixtures("recipes")
def test_given_settings_replace_those_of_the_recipe():
    given = {"task_options": {"length": 50}, "model_options": {"damping": 9.0}, "epochs": 1}
    config = ExperimentConfig("co_rnn", "adding", **given, clipvalue=0.5)
    assert config.model_options == {"step_size": 0.12, "damping": 9.0}
    assert (config.clipnorm, config.clipvalue, config.epochs) == (None, 0.5, 1)
    assert {"damping", "clipnorm", "epochs", "length"}.isdisjoint(config.sources)
    config = ExperimentConfig("co_rnn", "adding", optimizer="sgd")
    assert (config.learning_rate, config.schedule, config.optimizer_options) == (0.01, None, {})
    assert config.clipnorm == 5.0


@pytest.mark.usefixtures("recipes")
def test_other_tasks_take_general_settings_or_the_recipe_that_is_named():
    config = ExperimentConfig("co_rnn", "temporal_order")
    assert (config.optimizer, config.learning_rate, config.global_clipnorm) == ("adam", 1e-3, 1.0)
    assert (config.units, config.batch_size, config.epochs) == (128, 50, 10)
    assert config.model_options == config.task_options == {}
    assert set(config.sources.values()) == {"gradkeeper"}
    config = ExperimentConfig("co_rnn", "temporal_order", recipe="adding")
    assert (config.learning_rate, config.epochs, config.task_options) == (0.02, 4, {})
    assert config.model_options["step_size"] == 0.03
    refused_by_the_task = {"length": "long"}
    config = ExperimentConfig("co_rnn", "adding", task_options=refused_by_the_task)
    assert config.model_options["step_size"] == 0.03
    assert ExperimentConfig("co_rnn", "copying").learning_rate == 0.5
    assert ExperimentConfig("co_rnn", "adding", recipe="copying").learning_rate == 0.5
    with pytest.raises(ValueError, match=r"Did you mean 'adding'.*Received: recipe='add'"):
        ExperimentConfig("co_rnn", "adding", recipe="add")


@pytest.mark.usefixtures("recipes")
def test_a_complete_configuration_takes_nothing_from_a_recipe():
    """A run that was stored without clipping is resumed without clipping."""
    stored = ExperimentConfig("co_rnn", "adding").to_dict()
    config = ExperimentConfig.from_dict({**stored, "clipnorm": None, "learning_rate": 0.1})
    assert (config.clipnorm, config.learning_rate) == (None, 0.1)
    changed = Experiment(config, epochs=9, strategy="one_device").config
    assert (changed.clipnorm, changed.epochs) == (None, 9)
    assert "epochs" in config.sources
    assert "epochs" not in changed.sources


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().units = 3


def test_config_of_a_former_run_loads():
    stored = json.loads((FORMER / "config.json").read_text())
    for path in (FORMER, FORMER / "config.json"):
        config = ExperimentConfig.load(path)
        former = {"recipe": "none", "sources": {}, "task_options": config.task_options}
        assert config.to_dict() == {**stored, **former}


def test_missing_settings_get_defaults_and_the_digest_is_ignored():
    stored = {"model": "gru", "task": "adding", "data_digest": "0"}
    assert ExperimentConfig.from_dict(stored) == ExperimentConfig("gru", "adding", recipe="none")


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
        ({"task": "added"}, "Did you mean .*'adding'.*Received: task='added'"),
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
