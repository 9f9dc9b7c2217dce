"""Runs of a table: each is an `Experiment` with its own run directory, and is trained once."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from gradkeeper.callbacks import GradientHistory
from gradkeeper.training.experiment.config import DIGEST, ExperimentConfig
from gradkeeper.training.experiment.experiment import Experiment
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import FINISHED, RunDirectory, read_json
from gradkeeper.training.reporting.result_text import clipping
from gradkeeper.training.tasks import load_task
from results.finished_runs import FinishedRuns
from results.measurement import Measurement
from results.table import BenchConfig

# Entries that may differ between a kept run and the requested configuration.
_NOT_COMPARED = {"data_dir", "strategy", "recipe", "sources", DIGEST}
# XLA makes the time loop of one layer up to 3 times as fast on a CPU. It makes the loop slower if
# the inputs need a gradient (an embedding, a second layer), and does not help parallel scans and
# random numbers.
_TASKS_WITHOUT_EMBEDDING = ("adding", "noise_padded", "sequential_mnist", "temporal_order")
_SLOW_UNDER_XLA = ("lru", "min_gru", "min_lstm", "rg_lru", "zoneout_gru", "zoneout_lstm")
_TINY = {"units": 4, "batch_size": 8, "epochs": 2, "steps_per_epoch": 2, "jit_compile": False}


class StopAtLimit(keras.callbacks.Callback):
    """Stop the training once the validation loss is below `limit`, or not finite."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {})["val_loss"])
        if loss < self._limit or not math.isfinite(loss):
            self.model.stop_training = True


@dataclass(frozen=True)
class Run:
    """A trained run of a table."""

    result: Result

    def measurement(self, quantity: str, value: float | None, **fields: Any) -> Measurement:
        """Return a measurement with model, steps, seconds, seed and settings of the run.

        `fields` are other fields of `Measurement`; they override those of the run.
        """
        metrics, config = self.result.metrics, self.result.config
        of_run = {
            "model": config["model"],
            "steps": int(metrics["step"][-1]),
            "seconds": round(sum(metrics["seconds"]), 1),
            "seeds": str(config["seed"]),
            "settings": describe_settings(config),
        }
        return Measurement(**{**of_run, **fields, "quantity": quantity, "value": value})

    def first_step_below(self, limit: float) -> int | None:
        """Return the first step after which the validation loss is below `limit`."""
        metrics = self.result.metrics
        pairs = zip(metrics["step"], metrics["val_loss"], strict=True)
        return next((int(step) for step, loss in pairs if loss < limit), None)

    def values(self, name: str, steps: float = math.inf) -> list[float]:
        """Return the values of a metric after each epoch, within a number of train steps."""
        metrics = self.result.metrics
        pairs = zip(metrics["step"], metrics[name], strict=True)
        return [value for step, value in pairs if step <= steps]

    @property
    def best_loss(self) -> float:
        """Lowest validation loss over the epochs; NaN if none is finite."""
        losses = [loss for loss in self.result.metrics["val_loss"] if math.isfinite(loss)]
        return min(losses, default=math.nan)


def train(
    config: BenchConfig, label: str, arguments: Mapping[str, Any], *, limit: float | None = None
) -> Run | None:
    """Return a run; train only the part that its directory does not contain.

    A run whose result is in `config.finished` is not trained, and needs no directory.

    Args:
        config: see `BenchConfig`.
        label: name of the run directory.
        arguments: arguments of `Experiment`; `config.quick` replaces the sizes by tiny ones.
        limit: stop once the validation loss is below it, or not finite.

    Returns:
        The run; None if `config.collect` is set and no run with a complete epoch exists.

    Raises:
        ValueError: if the directory contains a run with other settings.
    """
    folder = config.runs / label
    exists = (folder / "config.json").is_file()
    chosen = {"recipe": "none", **(_with_tiny_sizes(arguments) if config.quick else arguments)}
    experiment = Experiment(
        **{"jit_compile": is_faster_under_xla(chosen), **chosen},
        data_dir=config.data_dir,
        run_dir=folder,
        resume=exists,
        callbacks=[] if limit is None else [StopAtLimit(limit)],
    )
    finished, settings = FinishedRuns(config.finished), _compared(experiment.config.to_dict())
    known = finished.find(label, settings)
    if known is not None:
        return Run(_result_of(known, folder, experiment.config))
    if exists:
        _require_same_settings(folder, settings)
    if config.collect or (exists and _status(folder) == FINISHED):
        result = Result.load(folder) if exists else None
        if result is None or not result.metrics.get("val_loss"):
            return None
    else:
        config.print(f"{label}: training")
        result = experiment.run(verbose=0 if config.console is None else 1, title=label)
    if result.status == FINISHED:
        finished.add(label, settings, _kept(result))
    return Run(result)


def is_faster_under_xla(arguments: Mapping[str, Any]) -> bool:
    """Return True if a CPU trains the model of these arguments of `Experiment` faster with XLA."""
    config = ExperimentConfig(**arguments)
    is_loop_of_features = config.num_layers == 1 and config.task in _TASKS_WITHOUT_EMBEDDING
    return is_loop_of_features and config.model not in _SLOW_UNDER_XLA


def train_each(
    config: BenchConfig,
    models: Iterable[str],
    arguments: Mapping[str, Any],
    *,
    of_model: Mapping[str, Mapping[str, Any]] | None = None,
    limit: float | None = None,
) -> Iterator[Run]:
    """Yield a run with seed 0 of each model, of two models with `config.quick`; see `train`.

    Args:
        config: see `BenchConfig`.
        models: names of zoo models.
        arguments: arguments of `Experiment` for all models.
        of_model: further arguments for one model, by its name.
        limit: see `train`.
    """
    for name in list(models)[:2] if config.quick else models:
        chosen = {"model": name, **arguments, **(of_model or {}).get(name, {})}
        run = train(config, f"{name}-seed0", chosen, limit=limit)
        if run is not None:
            yield run


def _with_tiny_sizes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    options = arguments["task_options"]
    if "length" in options:
        options = {**options, "length": 10}
    return {**arguments, **_TINY, "task_options": options}


def loss_on_test_split(config: BenchConfig, run: Run) -> float:
    """Return the loss on the test split, for the epoch with the lowest validation loss.

    NaN if no epoch had a finite loss.
    """
    if math.isnan(run.best_loss):
        return math.nan
    task = load_task(run.result.config["task"], split="test", data_dir=config.data_dir)
    model = keras.saving.load_model(RunDirectory(run.result.run_dir).best_model)
    return float(model.evaluate(task.evaluation_dataset(50), verbose=0, return_dict=True)["loss"])


def describe_settings(config: Mapping[str, Any]) -> str:
    """Describe in one line how a model was trained."""
    schedule = f" with {config['schedule']} decay" if config["schedule"] else ""
    layers = f"{config['num_layers']} × " if config["num_layers"] > 1 else ""
    parts = [
        f"{layers}{config['units']} units",
        *(f"{name} {value}" for name, value in config["model_options"].items()),
        f"{config['optimizer']} {config['learning_rate']:g}{schedule}",
        f"clipping: {clipping(config)}",
        f"batches of {config['batch_size']}",
        *(["XLA"] if config["jit_compile"] is True else []),
        *(f"{name} {value}" for name, value in config["task_options"].items()),
    ]
    return "; ".join(parts)


def _kept(result: Result) -> dict[str, Any]:
    """Return what `FinishedRuns` keeps of a result."""
    metrics = {
        name: [float(f"{value:.6g}") for value in values]
        for name, values in result.metrics.items()
        if name in ("epoch", "step", "seconds", "loss") or name.startswith("val_")
    }
    return {
        "metrics": metrics,
        "parameters": result.parameters,
        "time_per_step": float(f"{result.time_per_step:.4g}"),
    }


def _result_of(kept: dict[str, Any], folder: Path, config: ExperimentConfig) -> Result:
    return Result(
        run_dir=folder,
        status=FINISHED,
        config=config.to_dict(),
        history=GradientHistory(),
        findings=[],
        baseline=None,
        baseline_label="",
        **kept,
    )


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that determine the result of a run."""
    return {name: value for name, value in config.items() if name not in _NOT_COMPARED}


def _status(folder: Path) -> str:
    path = RunDirectory(folder).status
    return str(read_json(path)["status"]) if path.is_file() else ""


def _require_same_settings(folder: Path, config: Mapping[str, Any]) -> None:
    before = _compared(read_json(RunDirectory(folder).config))
    changed = sorted(name for name in {*before, *config} if before.get(name) != config.get(name))
    if changed:
        raise ValueError(
            "The run directory contains a run with other settings. Choose another folder with "
            f"`--runs`, or remove it. Differences: {', '.join(changed)}. Received: {str(folder)!r}"
        )
