"""One training run, defined by its configuration and stored in a run directory."""

import inspect
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from rich.console import Console

from gradkeeper import zoo
from gradkeeper.callbacks._workers import Worker
from gradkeeper.training._checks import integer, positive_number, unknown_name
from gradkeeper.training.build import build_model, build_optimizer
from gradkeeper.training.data_files import (
    DIGEST,
    absolute_paths,
    digest_of,
    require_same_data,
)
from gradkeeper.training.distribution import (
    chief_first,
    enable_multi_worker,
    make_strategy,
    name_of,
    wait_for_all,
)
from gradkeeper.training.optimizers import OPTIMIZERS
from gradkeeper.training.result import Result
from gradkeeper.training.resumption import is_done, require_same_config
from gradkeeper.training.run_directory import (
    RunDirectory,
    next_run_directory,
    read_json,
)
from gradkeeper.training.session import Session
from gradkeeper.training.tasks import Task, list_tasks, load_task

if TYPE_CHECKING:
    import tensorflow as tf

_OF_MODEL = {"name", "input_shape", "output_units", "task", "units", "num_layers"}
_OF_OPTIMIZER = {
    "name",
    "learning_rate",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "schedule",
}


class Experiment:
    """A zoo model trained on a task under a `GradientMonitor`.

        result = Experiment("gru", "adding", global_clipnorm=1.0, epochs=5).run()
        result.final_loss, result.largest_norm, result.findings, result.run_dir

    Trains with `model.fit` and writes a run directory (`RunDirectory` lists its files). Two runs
    with the same configuration have equal weights, metrics and gradient norms.

    Args:
        model: a name of `zoo.list_models()`.
        task: a name of `list_tasks()`.
        units, num_layers: size of the model; 128 and 1 unless the zoo entry defines others.
        model_options: further arguments of `zoo.create_model`, JSON-serializable.
        task_options: options of the task, such as `length`.
        optimizer, learning_rate: see `make_optimizer`; by default the zoo entry's recipe. For an
            optimizer other than the recipe's, the default rate is Keras's.
        clipnorm, global_clipnorm, clipvalue: at most one of them; by default no clipping.
        schedule: see `make_schedule`; by default `decay_steps` covers the whole training.
        optimizer_options: further arguments of `make_optimizer`.
        batch_size: examples per train step, over all replicas.
        epochs: total number of epochs, including those before a resumption.
        steps_per_epoch: train steps per epoch; by default the task's number.
        steps_per_execution, jit_compile: see `keras.Model.compile`.
        strategy: "auto", "one_device", "mirrored" or "multi_worker" (see
            `gradkeeper.training.distribution.make_strategy`), or a `tf.distribute` strategy. With
            several workers, each one runs the same program with the same `run_dir`, a folder that
            all of them can access; the chief writes it.
        seed: seed of weights, batches and dropout.
        flow: record how far back in time the gradient reaches, before the training and after
            every epoch, on a batch of 32 training examples (see `TemporalGradientFlow`).
        flow_regularizer: weight of the regularizer that preserves the gradient's norm from step to
            step (see `regularize_flow`); by default none.
        data_dir: data folder of tensorflow-datasets.
        run_dir: the run directory; by default the next free `runs/<model>-<task>-<number>`.
        overwrite: delete an existing run in `run_dir`.
        resume: continue after the last complete epoch of the run in `run_dir`. If the run is
            finished and all epochs are done, no file changes.
        allow_changed_data: resume even if a user file (task option `file`, `files` or
            `evaluation_files`) has changed since the run began.
        callbacks: further Keras callbacks; their epoch logs include the gradient norms.

    Raises:
        ValueError: for an unknown model, task or optimizer, two clip arguments, or a number out
            of its range. `run` checks the options of the model and the task before it writes
            anything.
    """

    def __init__(
        self,
        model: str = "gru",
        task: str = "adding",
        *,
        units: int | None = None,
        num_layers: int | None = None,
        model_options: Mapping[str, Any] | None = None,
        task_options: Mapping[str, Any] | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
        clipvalue: float | None = None,
        schedule: str | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        batch_size: int = 50,
        epochs: int = 10,
        steps_per_epoch: int | None = None,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        strategy: "str | tf.distribute.Strategy" = "auto",
        seed: int = 0,
        flow: bool = False,
        flow_regularizer: float | None = None,
        data_dir: str | PathLike[str] | None = None,
        run_dir: str | PathLike[str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        allow_changed_data: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        # Create the strategy first: several workers must connect before TensorFlow is initialized.
        self.strategy = make_strategy(strategy) if isinstance(strategy, str) else strategy
        info = zoo.model_info(model)
        size = {"units": 128, "num_layers": 1, **info.options}
        optimizer = info.recipe["optimizer"] if optimizer is None else optimizer
        if learning_rate is None:
            learning_rate = _usual_learning_rate(optimizer, info.recipe)
        self.config: dict[str, Any] = {
            "model": model,
            "task": task,
            "units": integer("units", size["units"] if units is None else units),
            "num_layers": integer(
                "num_layers", size["num_layers"] if num_layers is None else num_layers
            ),
            "model_options": dict(model_options or {}),
            "task_options": absolute_paths(task_options or {}),
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "clipnorm": clipnorm,
            "global_clipnorm": global_clipnorm,
            "clipvalue": clipvalue,
            "schedule": schedule,
            "optimizer_options": dict(optimizer_options or {}),
            "batch_size": integer("batch_size", batch_size),
            "epochs": integer("epochs", epochs),
            "steps_per_epoch": None
            if steps_per_epoch is None
            else integer("steps_per_epoch", steps_per_epoch),
            "steps_per_execution": integer("steps_per_execution", steps_per_execution),
            "jit_compile": jit_compile,
            "strategy": strategy if isinstance(strategy, str) else name_of(strategy),
            "seed": integer("seed", seed, minimum=0),
            "flow": bool(flow),
            "flow_regularizer": None
            if flow_regularizer is None
            else positive_number("flow_regularizer", flow_regularizer),
            "data_dir": None if data_dir is None else str(Path(data_dir).expanduser().absolute()),
        }
        _require_json(self.config)
        _refuse_double("model_options", model_options, _OF_MODEL)
        _refuse_double("optimizer_options", optimizer_options, _OF_OPTIMIZER)
        if task not in list_tasks():
            raise unknown_name("task", task, list_tasks())
        build_optimizer(self.config, total_steps=1)
        if run_dir is None and (overwrite or resume):
            raise ValueError("`overwrite` and `resume` need a `run_dir`. Received: run_dir=None")
        if run_dir is None and Worker.of(self.strategy).count > 1:
            raise ValueError(
                "Several workers need the same `run_dir`, in a folder that all of them can access. "
                "Received: run_dir=None"
            )
        self.run_dir = next_run_directory(f"{model}-{task}") if run_dir is None else Path(run_dir)
        self._overwrite = overwrite
        self._resume = resume
        self._allow_changed_data = allow_changed_data
        self._callbacks = list(callbacks)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | str | PathLike[str], **changes: Any
    ) -> "Experiment":
        """Recreate an experiment from its configuration or its `config.json`.

        Args:
            config: `.config`, or the path of a `config.json` or of the run directory.
            **changes: arguments that override the configuration, and further ones (`run_dir`).
        """
        if isinstance(config, Mapping):
            arguments = {name: config[name] for name in config if name != DIGEST}
            return cls(**{**arguments, **changes})
        return cls.from_config(read_json(_config_file(Path(config))), **changes)

    def run(self, *, verbose: int = 1, title: str | None = None) -> Result:
        """Train the model and write the run directory.

        Args:
            verbose: 1 to show progress, 0 for no output.
            title: title of the progress bar; by default "<model> on <task>".

        Raises:
            KeyboardInterrupt: if interrupted, after the run directory is complete.
            ValueError, TypeError: for an invalid argument of the model, task or optimizer.
            OSError: if the run directory exists, is missing, or is not writable.
        """
        keras.utils.set_random_seed(self.config["seed"])
        directory = RunDirectory(self.run_dir)
        directory.check(overwrite=self._overwrite, resume=self._resume)
        before = read_json(directory.config) if self._resume else {}
        if self._resume:
            require_same_config(before, self.config)
            if is_done(directory, self.config["epochs"]):
                _say(f"Nothing to do: all {self.config['epochs']} epochs are done.", verbose)
                return Result.load(directory.path)
        with chief_first(self.strategy):
            task = load_task(
                self.config["task"],
                data_dir=self.config["data_dir"],
                seed=self.config["seed"],
                **self.config["task_options"],
            )
        session = self._session(directory, self._with_digest(task, before.get(DIGEST)), task)
        if task.report and Worker.of(self.strategy).is_chief:
            _say(task.report, verbose)
        title = title or f"{self.config['model']} on {self.config['task']}"
        return session.train(self._callbacks, verbose=verbose, title=title)

    def _session(self, directory: RunDirectory, config: Mapping[str, Any], task: Task) -> Session:
        """Create the model and, for a new run, the directory."""
        steps = config["steps_per_epoch"] or task.steps_per_epoch(config["batch_size"])
        with self.strategy.scope():
            model = enable_multi_worker(build_model(config, task, steps))
        wait_for_all(self.strategy)  # all workers have checked the directory
        if Worker.of(self.strategy).is_chief and not self._resume:
            prediction = task.prediction_settings
            directory.prepare(config, prediction=prediction, overwrite=self._overwrite)
        wait_for_all(self.strategy)
        return Session(directory, config, task, model, steps, resume=self._resume)

    def _with_digest(self, task: Task, before: str | None) -> dict[str, Any]:
        """Return the configuration with the digest of the task's files, if it has any."""
        digest = digest_of(task.files)
        if not self._allow_changed_data:
            require_same_data(before, digest)
        return {**self.config, **({} if digest is None else {DIGEST: digest})}


def _say(text: str, verbose: int) -> None:
    Console(highlight=False, quiet=verbose == 0).print(text, markup=False, soft_wrap=True)


def _usual_learning_rate(optimizer: str, recipe: Mapping[str, Any]) -> float:
    if optimizer == recipe["optimizer"]:
        return float(recipe["learning_rate"])
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    signature = inspect.signature(OPTIMIZERS[optimizer].__init__)
    return float(signature.parameters["learning_rate"].default)


def _refuse_double(name: str, options: Mapping[str, Any] | None, own: set[str]) -> None:
    double = own & set(options or {})
    if double:
        raise ValueError(
            "Arguments that `Experiment` sets directly or takes from the task are not allowed in "
            f"`{name}`: {', '.join(sorted(own))}. Received: {name}={dict(options or {})!r}"
        )


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path
    directory = RunDirectory(path)
    directory.require()
    return directory.config


def _require_json(config: Mapping[str, Any]) -> None:
    try:
        json.dumps(config)
    except TypeError as error:
        raise ValueError(
            "The configuration of an experiment must be JSON-serializable: pass names instead of "
            f"objects. Received: {error}"
        ) from error
