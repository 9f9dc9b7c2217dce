"""Runs of a table: each one is an `Experiment` with its own run directory and is trained once."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from gradkeeper.training.evidence.setup import Setup
from gradkeeper.training.experiment.config import DIGEST
from gradkeeper.training.experiment.experiment import Experiment
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.run_directory import FINISHED, RunDirectory, read_json
from gradkeeper.training.reporting.result_text import clipping

# Entries that may differ between a kept run and the requested configuration.
_NOT_COMPARED = {"data_dir", "strategy", DIGEST}


class StopWhenSettled(keras.callbacks.Callback):
    """Stop the training once the validation loss is below a limit, or not finite.

    Args:
        limit: the validation loss to fall below.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {})["val_loss"])
        if loss < self._limit or not math.isfinite(loss):
            self.model.stop_training = True


@dataclass(frozen=True)
class Run:
    """A trained run of a table.

    Attributes:
        result: result of the run.
    """

    result: Result

    @property
    def facts(self) -> dict[str, Any]:
        """Arguments of `Cell` that describe how the run was trained."""
        metrics, config = self.result.metrics, self.result.config
        return {
            "steps": int(metrics["step"][-1]),
            "seconds": round(sum(metrics["seconds"]), 1),
            "seeds": str(config["seed"]),
            "settings": settings_of(config),
        }

    def first_step_below(self, limit: float) -> int | None:
        """Return the first step after which the validation loss is below `limit`."""
        for step, loss in zip(
            self.result.metrics["step"], self.result.metrics["val_loss"], strict=True
        ):
            if loss < limit:
                return int(step)
        return None

    @property
    def best_loss(self) -> float:
        """Lowest validation loss over the epochs; NaN if none is finite."""
        losses = [loss for loss in self.result.metrics["val_loss"] if math.isfinite(loss)]
        return min(losses, default=math.nan)


def train(
    setup: Setup, label: str, arguments: Mapping[str, Any], *, limit: float | None = None
) -> Run | None:
    """Return a run; train only the part that its directory does not contain.

    Args:
        setup: see `Setup`.
        label: name of the run directory.
        arguments: arguments of `Experiment`.
        limit: stop once the validation loss is below it, or not finite.

    Returns:
        The run; None if `setup.collect` is set and no run with a complete epoch exists.

    Raises:
        ValueError: if the directory contains a run with other settings.
    """
    place = setup.runs / label
    kept = (place / "config.json").is_file()
    callbacks = [] if limit is None else [StopWhenSettled(limit)]
    experiment = Experiment(
        **arguments, data_dir=setup.data_dir, run_dir=place, resume=kept, callbacks=callbacks
    )
    if kept:
        _require_same(place, experiment.config.to_dict())
    if setup.collect or (kept and _status(place) == FINISHED):
        return _with_an_epoch(Result.load(place)) if kept else None
    setup.say(f"{label}: training")
    return Run(experiment.run(verbose=0 if setup.console is None else 1, title=label))


def train_each(
    setup: Setup,
    models: Iterable[str],
    arguments: Callable[[str, bool], Mapping[str, Any]],
    *,
    limit: float | None = None,
) -> Iterator[tuple[str, Run]]:
    """Yield each model's name and its run with seed 0; see `train`.

    Args:
        setup: see `Setup`.
        models: names of zoo models.
        arguments: function of a model's name and `setup.quick`; returns arguments of `Experiment`.
        limit: see `train`.
    """
    for name in models:
        run = train(setup, f"{name}-seed0", arguments(name, setup.quick), limit=limit)
        if run is not None:
            yield name, run


def settings_of(config: Mapping[str, Any]) -> str:
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


def _with_an_epoch(result: Result) -> Run | None:
    return Run(result) if result.metrics.get("val_loss") else None


def _status(place: Path) -> str:
    path = RunDirectory(place).status
    return str(read_json(path)["status"]) if path.is_file() else ""


def _require_same(place: Path, config: Mapping[str, Any]) -> None:
    before = read_json(RunDirectory(place).config)
    changed = sorted(
        name for name in {*before, *config} - _NOT_COMPARED if before.get(name) != config.get(name)
    )
    if changed:
        raise ValueError(
            "The run directory contains a run with other settings. Choose another folder with "
            f"`--runs`, or remove it. Differences: {', '.join(changed)}. Received: {str(place)!r}"
        )
