"""Export of trained weights to the files that the zoo ships."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from gradkeeper import zoo
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import RunDirectory
from gradkeeper.training.tasks import load_task
from gradkeeper.zoo.pretrained import write_weights


@dataclass(frozen=True)
class Exported:
    """A run whose best weights the zoo ships.

    Attributes:
        table: the table that the run belongs to.
        model, weights: names of the model and the weights in the zoo.
        what: description of the loss.
    """

    table: str
    model: str
    weights: str
    what: str


EXPORTED = (
    Exported("tiny_shakespeare", "gru", "tiny_shakespeare", "nats per character, validation split"),
    Exported(
        "tiny_shakespeare", "lstm", "tiny_shakespeare", "nats per character, validation split"
    ),
    Exported("jsb_chorales", "gru", "jsb_chorales", "nats per frame, validation split"),
    Exported("adding_600", "gru", "adding", "mean squared error, 1,000 fixed sequences"),
)


def export_weights(runs: Path, out: Path, *, data_dir: Path | None = None) -> list[Path]:
    """Write the best weights of every existing run in `EXPORTED`.

    Args:
        runs: the folder in which `gradkeeper bench` keeps its runs.
        out: the folder to write to; the zoo's files are in `zoo/weights`.
        data_dir: data folder of tensorflow-datasets.

    Raises:
        ValueError: if none of the runs exists.
    """
    there = [each for each in EXPORTED if RunDirectory(_place(runs, each)).best_model.is_file()]
    if not there:
        raise ValueError(f"No trained run was found. Received: runs={str(runs)!r}")
    out.mkdir(parents=True, exist_ok=True)
    return [path for each in there for path in _export(each, runs, out, data_dir)]


def _export(each: Exported, runs: Path, out: Path, data_dir: Path | None) -> list[Path]:
    result = Result.load(_place(runs, each))
    config = result.config
    task = load_task(config["task"], data_dir=data_dir, **config["task_options"])
    losses = result.metrics["val_loss"]
    facts: dict[str, Any] = {
        "model": each.model,
        "name": each.weights,
        "options": _options(config, task),
        "vocabulary": None if task.vocabulary is None else task.vocabulary.characters,
        "loss": min(losses),
        "loss_description": each.what,
        "steps": int(result.metrics["step"][losses.index(min(losses))]),
        "command": f"gradkeeper bench {each.table} && gradkeeper bench weights",
        "recipe": {name: value for name, value in config.items() if name not in _OF_THE_MACHINE},
    }
    trained = keras.saving.load_model(RunDirectory(result.run_dir).best_model)
    model = zoo.create_model(each.model, **facts["options"])  # accepts any number of time steps
    model.set_weights(trained.get_weights())
    return write_weights(out, model, facts)


_OF_THE_MACHINE = ("data_dir", "strategy", "flow")


def _options(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """Return the arguments of `create_model` that determine the weights; the length is free."""
    dropped = ("dropout", "recurrent_dropout")
    model = {**task.model_options, **config["model_options"]}
    return {
        "input_shape": [None, *task.input_shape[1:]],
        "output_units": task.output_units,
        "task": task.head,
        "units": config["units"],
        "num_layers": config["num_layers"],
        **{name: value for name, value in model.items() if name not in dropped},
    }


def _place(runs: Path, each: Exported) -> Path:
    return runs / each.table / f"{each.model}-seed0"
