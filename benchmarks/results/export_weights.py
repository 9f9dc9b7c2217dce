"""Export of trained weights to the files that the zoo includes."""

from pathlib import Path
from typing import Any

import keras

from gradkeeper import zoo
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import RunDirectory
from gradkeeper.training.tasks import Task, load_task
from gradkeeper.zoo.pretrained import write_weights

_ADDING = ("adding", "mean squared error, 1,000 fixed sequences")
_CHARACTERS = ("tiny_shakespeare", "nats per character, validation split")
# Table and run directory: name of the weights in the zoo, and description of their loss.
EXPORTED = {
    ("promises", "atr-contrast"): _CHARACTERS,  # of the GRU
    ("promises", "cfn-contrast"): _CHARACTERS,  # of the LSTM
    ("jsb_chorales", "gru-seed0"): ("jsb_chorales", "nats per frame, validation split"),
    ("adding_600", "gru-seed0"): _ADDING,
    ("promises", "co_rnn-seed0"): _ADDING,
    ("promises", "ind_rnn-seed0"): _ADDING,
    ("promises", "min_gru-seed0"): ("selective_copying", "nats per symbol, validation split"),
    ("promises", "s_lstm-seed0"): ("parity", "nats per sequence, validation split"),
    ("promises", "seq2seq_attention-seed0"): ("reverse", "nats per digit, validation split"),
}
_NOT_IN_THE_RECIPE = ("data_dir", "strategy", "flow")


def export_weights(runs: Path, out: Path, *, data_dir: Path | None = None) -> list[Path]:
    """Write the best weights of every existing run in `EXPORTED`.

    Args:
        runs: the folder in which `gradkeeper bench` keeps its runs.
        out: the folder to write to; the zoo's files are in `zoo/weights`.
        data_dir: data folder of tensorflow-datasets.

    Raises:
        ValueError: if none of the runs exists.
    """
    folders = {key: runs.joinpath(*key) for key in EXPORTED}
    found = [key for key in EXPORTED if RunDirectory(folders[key]).best_model.is_file()]
    if not found:
        raise ValueError(f"No trained run was found. Received: runs={str(runs)!r}")
    out.mkdir(parents=True, exist_ok=True)
    return [path for key in found for path in _export(key, folders[key], out, data_dir)]


def _export(key: tuple[str, str], folder: Path, out: Path, data_dir: Path | None) -> list[Path]:
    result, (table, _) = Result.load(folder), key
    config, losses = result.config, result.metrics["val_loss"]
    model = config["model"]
    task = load_task(config["task"], data_dir=data_dir, **config["task_options"])
    name, description = EXPORTED[key]
    facts: dict[str, Any] = {
        "model": model,
        "name": name,
        "options": _options(config, task),
        "vocabulary": None if task.vocabulary is None else task.vocabulary.characters,
        "loss": min(losses),
        "loss_description": description,
        "steps": int(result.metrics["step"][losses.index(min(losses))]),
        "command": f"gradkeeper train {model} --task {config['task']}"
        if table == "promises"
        else f"gradkeeper bench {table} --retrain && gradkeeper bench weights",
        "recipe": {key: value for key, value in config.items() if key not in _NOT_IN_THE_RECIPE},
    }
    trained = keras.saving.load_model(RunDirectory(folder).best_model)
    exported = zoo.create_model(model, **facts["options"])  # accepts any number of time steps
    exported.set_weights(trained.get_weights())
    return write_weights(out, exported, facts)


def _options(config: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return the arguments of `create_model` that determine the weights; the length is free."""
    options = {**task.model_options, **config["model_options"]}
    return {
        "input_shape": [None, *task.input_shape[1:]],
        "output_units": task.output_units,
        "task": task.head,
        "units": config["units"],
        "num_layers": config["num_layers"],
        **{name: options[name] for name in options if name not in ("dropout", "recurrent_dropout")},
    }
