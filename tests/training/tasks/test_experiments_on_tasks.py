"""Experiments on other kinds of tasks, from the configuration to the run directory."""

import keras
import pytest
from typer.testing import CliRunner

from gradkeeper.training import Experiment
from gradkeeper.training.cli import app
from gradkeeper.training.experiment.experiment import build_model

SMALL = {"units": 4, "batch_size": 4, "epochs": 1, "steps_per_epoch": 3}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gru", "jsb_chorales"),
        pytest.param("seq2seq_attention", "addition", marks=pytest.mark.slow),
    ],
)
def test_a_padded_task_is_trained_and_its_model_loaded(model, name, load, tmp_path):
    task = load(name)
    result = Experiment(
        model,
        name,
        task_options=task.options,
        data_dir=task.data_dir,
        run_dir=tmp_path / "run",
        **SMALL,
    ).run(verbose=0)
    assert result.baseline == task.baseline
    trained = keras.saving.load_model(tmp_path / "run" / "model.keras")
    logs = trained.evaluate(task.evaluation_dataset(9), return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(result.metrics["val_loss"][-1], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("seq2seq_attention", "adding", r"the head 'regression', which 'seq2seq_attention'.*gru"),
        ("gru", "reverse", "the head 'sequence_to_sequence', .*one of: seq2seq_attention. Rec"),
    ],
)
def test_a_model_without_the_head_is_refused_before_anything_is_written(
    model, name, message, tmp_path
):
    experiment = Experiment(model, name, data_dir=tmp_path, run_dir=tmp_path / "run", **SMALL)
    with pytest.raises(ValueError, match=message):
        experiment.run(verbose=0)
    assert not list(tmp_path.iterdir())


def test_options_of_the_user_count_more_than_those_of_the_task(load):
    task = load("delimited_text")
    options = {"embedding_units": 2, "mask_zero": False}
    config = Experiment("gru", task.name, model_options=options, **SMALL).config
    embedding = build_model(config, task, steps_per_epoch=1).get_layer("embedding")
    assert (embedding.output_dim, embedding.mask_zero) == (2, False)


@pytest.mark.parametrize("others", [[], ["--task", "delimited_text", "--option", "delimiter=."]])
def test_a_text_file_is_named_on_the_command_line(others, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    experiments = []
    monkeypatch.setattr("gradkeeper.training.cli.train._run", experiments.append)
    outcome = CliRunner().invoke(app, ["train", "gru", "--text", "my.txt", *others])
    assert outcome.exit_code == 0, outcome.output
    config = experiments[0].config
    assert config.task == (others[1] if others else "text_file")
    assert config.task_options == {
        "file": str(tmp_path / "my.txt"),
        **({"delimiter": "."} if others else {}),
    }
