"""One training run, defined by its configuration and stored in a run directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from rich.console import Console

from gradkeeper import zoo
from gradkeeper._arguments import integer
from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks._text import with_count
from gradkeeper.callbacks._workers import Worker
from gradkeeper.training.distribution.strategies import (
    chief_first,
    enable_multi_worker,
    scope_of,
    strategy_and_name,
    wait_for_all,
)
from gradkeeper.training.experiment.config import AUTO, DIGEST, ExperimentConfig
from gradkeeper.training.experiment.result import Result
from gradkeeper.training.experiment.resumption import (
    EpochBackup,
    digest_of,
    is_done,
    require_same_config,
    require_same_data,
)
from gradkeeper.training.experiment.run_directory import (
    RunDirectory,
    next_run_directory,
    read_json,
)
from gradkeeper.training.experiment.session import Session
from gradkeeper.training.optimizers import make_optimizer
from gradkeeper.training.schedules import SCHEDULES
from gradkeeper.training.tasks import Task, load_task

if TYPE_CHECKING:
    import tensorflow as tf


class Experiment:
    """A zoo model trained on a task under a `GradientMonitor`.

        result = Experiment("gru", "adding", global_clipnorm=1.0, epochs=5).run()
        result.final_loss, result.largest_norm, result.findings, result.run_dir

    Trains with `model.fit` and writes a run directory (`RunDirectory` lists its files). Two runs
    with the same configuration have equal weights, metrics and gradient norms.

    Args:
        model: a name of `zoo.list_models()`, or an `ExperimentConfig`.
        task: a name of `list_tasks()`.
        strategy: a name, see `ExperimentConfig`, or a `tf.distribute` strategy. With several
            workers, each one runs the same program with the same `run_dir`, a folder that all of
            them can access; the chief writes it.
        run_dir: the run directory; by default the next free `runs/<model>-<task>-<number>`.
        overwrite: delete an existing run in `run_dir`.
        resume: continue after the last complete epoch of the run in `run_dir`. If the run is
            finished and all epochs are done, no file changes.
        allow_changed_data: resume even if a user file (task option `file`, `files` or
            `evaluation_files`) has changed since the run began.
        callbacks: further Keras callbacks; their epoch logs include the gradient norms.
        **settings: further settings of `ExperimentConfig`, such as `units`, `learning_rate`,
            `global_clipnorm`, `epochs`, `seed`.

    Attributes:
        config: the `ExperimentConfig`.
        strategy: the `tf.distribute` strategy; None on the JAX backend.
        run_dir: the run directory.

    Raises:
        ValueError: for an unknown setting, model, task or optimizer, two clip arguments, or a
            number out of its range; for a setting that the backend of Keras does not support. `run`
            checks the options of the model and the task before it writes anything.
    """

    def __init__(
        self,
        model: str | ExperimentConfig = "gru",
        task: str | None = None,
        *,
        strategy: "str | tf.distribute.Strategy | None" = None,
        run_dir: str | PathLike[str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        allow_changed_data: bool = False,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **settings: Any,
    ) -> None:
        given: dict[str, Any] = {"model": model, "task": "adding", "recipe": AUTO}
        if isinstance(model, ExperimentConfig):
            given = model.to_dict()
            given["sources"] = {
                name: source for name, source in model.sources.items() if name not in settings
            }
        if task is not None:
            given["task"] = task
        strategy = given.get("strategy", "auto") if strategy is None else strategy
        # Create the strategy first: several workers must connect before TensorFlow is initialized.
        self.strategy, given["strategy"] = strategy_and_name(strategy)
        self.config = ExperimentConfig.from_dict({**given, **settings})
        _require_backend(self.config)
        build_optimizer(self.config, total_steps=1)
        self.run_dir = self._place(run_dir, needed=overwrite or resume)
        self._overwrite, self._resume = overwrite, resume
        self._allow_changed_data = allow_changed_data
        self._callbacks = list(callbacks)

    @classmethod
    def from_config(
        cls, config: ExperimentConfig | Mapping[str, Any] | str | PathLike[str], **changes: Any
    ) -> "Experiment":
        """Recreate an experiment from its configuration or its `config.json`.

        Args:
            config: the configuration, its content as a mapping, or the path of a `config.json` or
                of the run directory.
            **changes: arguments that override the configuration, and further ones (`run_dir`).
        """
        if isinstance(config, Mapping):
            config = ExperimentConfig.from_dict(config)
        elif not isinstance(config, ExperimentConfig):
            config = ExperimentConfig.load(config)
        model = changes.pop("model", config.model)
        return cls(dataclasses.replace(config, model=model), **changes)

    def run(self, *, verbose: int = 1, title: str | None = None) -> Result:
        """Train the model and write the run directory.

        Args:
            verbose: 1 to show progress, 0 for no output.
            title: title of the progress bar; by default "<model> on <task>".

        Raises:
            KeyboardInterrupt: after Ctrl-C, when the step in progress has ended and the run
                directory is complete; after a second Ctrl-C, at once.
            ValueError, TypeError: for an invalid argument of the model, task or optimizer.
            OSError: if the run directory exists, is missing, or is not writable.
        """
        config, directory = self.config, RunDirectory(self.run_dir)
        keras.utils.set_random_seed(config.seed)
        directory.check(overwrite=self._overwrite, resume=self._resume)
        before = read_json(directory.config) if self._resume else {}
        if self._resume:
            require_same_config(ExperimentConfig.from_dict(before), config)
            if is_done(directory, config.epochs):
                done = EpochBackup(directory.backup).epoch
                _say(f"Nothing to do: {with_count(done, 'epoch')} done.", verbose)
                return Result.load(directory.path)
        with chief_first(self.strategy):
            task = task_of(config)
        digest = digest_of(task.files)
        if not self._allow_changed_data:
            require_same_data(before.get(DIGEST), digest, task.files)
        session = self._session(directory, task, {} if digest is None else {DIGEST: digest})
        if task.report and Worker.of(self.strategy).is_chief:
            _say(task.report, verbose)
        title = title or f"{config.model} on {config.task}"
        return session.train(self._callbacks, verbose=verbose, title=title)

    def _place(self, run_dir: str | PathLike[str] | None, *, needed: bool) -> Path:
        """Return the run directory."""
        if run_dir is not None:
            return Path(run_dir)
        if needed:
            raise ValueError("`overwrite` and `resume` need a `run_dir`. Received: run_dir=None")
        if Worker.of(self.strategy).count > 1:
            raise ValueError(
                "Several workers need the same `run_dir`, in a folder that all of them can access. "
                "Received: run_dir=None"
            )
        return next_run_directory(f"{self.config.model}-{self.config.task}")

    def _session(self, directory: RunDirectory, task: Task, digest: Mapping[str, str]) -> Session:
        """Create the model and, for a new run, the directory."""
        steps = self.config.steps_per_epoch or task.steps_per_epoch(self.config.batch_size)
        if steps % self.config.steps_per_execution:
            raise ValueError(
                "`steps_per_epoch` must be a multiple of `steps_per_execution`. Received: "
                f"steps_per_epoch={steps}, steps_per_execution={self.config.steps_per_execution}"
            )
        with scope_of(self.strategy):
            model = enable_multi_worker(build_model(self.config, task, steps))
        stored = {**self.config.to_dict(), **digest}
        wait_for_all(self.strategy)  # all workers have checked the directory
        if Worker.of(self.strategy).is_chief and not self._resume:
            prediction = task.prediction_settings
            directory.prepare(stored, prediction=prediction, overwrite=self._overwrite)
        wait_for_all(self.strategy)
        return Session(directory, stored, task, model, steps, resume=self._resume)


def _say(text: str, verbose: int) -> None:
    Console(highlight=False, quiet=verbose == 0).print(text, markup=False, soft_wrap=True)


def task_of(config: ExperimentConfig) -> Task:
    """Load the task of a configuration."""
    return load_task(config.task, data_dir=config.data_dir, seed=config.seed, **config.task_options)


def build_model(config: ExperimentConfig, task: Task, steps_per_epoch: int) -> keras.Model:
    """Create the zoo model for a task and compile it; add the flow regularizer if configured.

    Args:
        config: the configuration.
        task: the task to train on.
        steps_per_epoch: train steps per epoch; a schedule decays over all epochs.

    Raises:
        ValueError: if the model has no head for the task.
    """
    _require_head(config.model, task)
    optimizer = build_optimizer(config, total_steps=config.epochs * steps_per_epoch)
    model = zoo.create_model(
        config.model,
        input_shape=task.input_shape,
        output_units=task.output_units,
        task=task.head,
        units=config.units,
        num_layers=config.num_layers,
        **{**task.model_options, **config.model_options},
    )
    model.compile(
        optimizer=optimizer,
        loss=task.loss,
        weighted_metrics=task.metrics,
        steps_per_execution=config.steps_per_execution,
        jit_compile=config.jit_compile,
    )
    # Keras traces the train step twice if the first trace creates the optimizer's variables.
    model.optimizer.build(model.trainable_variables)
    if config.flow_regularizer is not None:
        from gradkeeper.training.flow_regularizer import regularize_flow  # needs TensorFlow

        regularize_flow(model, config.flow_regularizer)
    return model


def build_optimizer(config: ExperimentConfig, *, total_steps: int) -> keras.optimizers.Optimizer:
    """Create the optimizer of a configuration; its schedule decays over `total_steps`."""
    options = dict(config.optimizer_options)
    if "decay_steps" in SCHEDULES[config.schedule or "constant"]:
        warmup = integer("warmup_steps", options.get("warmup_steps", 0), minimum=0)
        options.setdefault("decay_steps", max(1, total_steps - warmup))
    return make_optimizer(
        config.optimizer,
        config.learning_rate,
        clipnorm=config.clipnorm,
        global_clipnorm=config.global_clipnorm,
        clipvalue=config.clipvalue,
        schedule=config.schedule,
        **options,
    )


def _require_backend(config: ExperimentConfig) -> None:
    backend = keras.backend.backend()
    if not GradientMonitor.supports_backend():
        raise ValueError(
            "An experiment needs a backend of Keras that `GradientMonitor` supports. "
            f"Received: KERAS_BACKEND={backend}"
        )
    if config.flow_regularizer is not None and backend != "tensorflow":
        raise ValueError(
            "The flow regularizer needs the TensorFlow backend of Keras. "
            f"Received: flow_regularizer={config.flow_regularizer}, KERAS_BACKEND={backend}"
        )


def _require_head(model: str, task: Task) -> None:
    if task.head in zoo.model_info(model).tasks:
        return
    able = [name for name in zoo.list_models() if task.head in zoo.model_info(name).tasks]
    raise ValueError(
        f"The task {task.name!r} needs a model with the head {task.head!r}, which {model!r} does "
        f"not have. Choose one of: {', '.join(able)}. Received: model={model!r}, "
        f"task={task.name!r}"
    )
