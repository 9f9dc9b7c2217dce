"""Execution of an experiment's `fit`, and its output files."""

import importlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from gradkeeper.callbacks import Finding, GradientMonitor, TemporalGradientFlow
from gradkeeper.callbacks._workers import Worker, strategy_of
from gradkeeper.callbacks.rules import ReplicaDisagreement
from gradkeeper.callbacks.sinks import read_all_workers
from gradkeeper.training.distribution.strategies import chief_first, sharded, wait_for_all
from gradkeeper.training.experiment.epoch_files import FlowFiles, MetricsFile
from gradkeeper.training.experiment.interruption import InterruptBetweenSteps
from gradkeeper.training.experiment.progress import StepTimer, TrainingProgress
from gradkeeper.training.experiment.result import Result, first_of_each
from gradkeeper.training.experiment.resumption import EpochBackup, status_of
from gradkeeper.training.experiment.run_directory import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    RunDirectory,
    read_json,
    write_json,
)
from gradkeeper.training.reporting.reports import write_run_report
from gradkeeper.training.tasks import Task

_FLOW_EXAMPLES = 32


class Session:
    """Training of a model in a run directory.

    With several workers, all of them train and only the chief writes, except for the gradient
    history: each worker writes the norms of its replicas to a part of it.

    Args:
        directory: prepared run directory with its `config.json`.
        config: see `Experiment.config`.
        task: the task to train on.
        model: built and compiled model.
        steps_per_epoch: train steps per epoch.
        resume: True to continue the run in the directory. Its files stay unchanged until its last
            state is restored, so that an earlier failure does not damage them.
    """

    def __init__(
        self,
        directory: RunDirectory,
        config: Mapping[str, Any],
        task: Task,
        model: keras.Model,
        steps_per_epoch: int,
        *,
        resume: bool = False,
    ) -> None:
        self._directory = directory
        self._config = config
        self._task = task
        self._model = model
        self._steps_per_epoch = steps_per_epoch
        self._strategy = strategy_of(model)
        self._is_chief = Worker.of(self._strategy).is_chief
        self._backup = EpochBackup(directory.backup, writes=self._is_chief, strategy=self._strategy)
        self._first_epoch = self._backup.epoch
        self._monitor = GradientMonitor(log_dir=directory.gradients, verbose=0)
        self._metrics = MetricsFile(
            directory.metrics, first_epoch=self._first_epoch, writes=self._is_chief
        )
        self._timer = StepTimer()
        self._began = time.time()
        self._resume, self._changes_files = resume, not resume

    def train(
        self, callbacks: Sequence[keras.callbacks.Callback], *, verbose: int, title: str
    ) -> Result:
        """Fit the model; complete the run directory also after an exception."""
        if not self._resume:
            self._write_status(RUNNING)
        status = FAILED
        try:
            quiet = verbose == 0 or not self._is_chief
            self._fit(callbacks, Console(highlight=False, quiet=quiet), title)
            status = FINISHED
        except KeyboardInterrupt:
            status = INTERRUPTED
            raise
        finally:
            self._monitor.close()
            if status == FINISHED:  # the chief reads the files of the other workers
                wait_for_all(self._strategy)
            if self._is_chief and self._changes_files:
                self._leave(status)
        wait_for_all(self._strategy)
        return Result.load(self._directory.path)

    def _fit(
        self, callbacks: Sequence[keras.callbacks.Callback], console: Console, title: str
    ) -> None:
        batch_size, seen = self._config["batch_size"], self._first_epoch * self._steps_per_epoch
        # Attach the observers first, so that all callbacks see their numbers in the logs; attach
        # the backup last, so that no other file is older than the backup.
        observers = [self._monitor, *self._flow(console)]
        attached = [*observers, *callbacks, self._metrics, self._timer, *self._checkpoints()]
        if self._resume and status_of(self._directory) == FINISHED:
            go_on = keras.callbacks.LambdaCallback(on_epoch_end=self._go_on)
            attached.insert(0, go_on)  # before the files of the epoch are written
        elif self._resume:  # after the backup, which restores the last state
            attached.append(keras.callbacks.LambdaCallback(on_train_begin=self._go_on))
        progress = TrainingProgress(
            self._monitor, title, first_epoch=self._first_epoch, console=console
        )
        with chief_first(self._strategy):
            evaluation = sharded(self._task.evaluation_dataset(batch_size))
        interruption = InterruptBetweenSteps()
        with progress, interruption:
            self._model.fit(
                sharded(self._task.train_dataset(batch_size, endless=True).skip(seen)),
                validation_data=evaluation,
                initial_epoch=self._first_epoch,
                epochs=self._config["epochs"],
                steps_per_epoch=self._steps_per_epoch,
                callbacks=[*attached, progress, interruption],
                shuffle=False,
                verbose=0,
            )

    def _go_on(self, *_: Any) -> None:
        """Start changing the files of a resumed run.

        A finished run stays finished until its first further epoch is complete.
        """
        if self._changes_files:
            return
        self._changes_files = True
        if self._is_chief:
            self._directory.prepare(self._config, prediction=self._task.prediction_settings)
        self._write_status(RUNNING)

    def _flow(self, console: Console) -> list[keras.callbacks.Callback]:
        """Return the callbacks that record gradients through time, if the config enables them."""
        if not (self._config["flow"] and self._is_chief):
            return []
        if not TemporalGradientFlow.supports_backend():
            console.print(
                "The run records no gradients through time: TemporalGradientFlow does not support "
                f"the backend. Received: flow=True, KERAS_BACKEND={keras.backend.backend()}",
                soft_wrap=True,
            )
            return []
        batches = self._task.train_dataset(_FLOW_EXAMPLES).as_numpy_iterator()
        inputs, targets, *_ = next(batches)
        flow = TemporalGradientFlow(inputs, targets)
        return [flow, FlowFiles(self._directory.flow, flow, first_epoch=self._first_epoch)]

    def _checkpoints(self) -> list[keras.callbacks.Callback]:
        losses = [row["val_loss"] for row in self._metrics.rows if "val_loss" in row]
        finite = [loss for loss in losses if math.isfinite(loss)]
        best = keras.callbacks.ModelCheckpoint(
            self._directory.best_model,
            monitor="val_loss",
            mode="min",
            save_best_only=True,
            initial_value_threshold=min(finite, default=None),
        )
        return [best, self._backup] if self._is_chief else [self._backup]

    def _leave(self, status: str) -> None:
        """Write status, findings, model and report."""
        self._write_status(status)
        found = [finding.to_dict() for finding in self._findings()]
        write_json(self._directory.findings, found)
        if _has_weights(self._model):
            self._model.save(self._directory.model)
        write_run_report(Result.load(self._directory.path))

    def _findings(self) -> list[Finding]:
        """Return the findings, including those from before a resumption."""
        path = self._directory.findings
        seen = self._first_epoch * self._steps_per_epoch
        before = [Finding(**each) for each in read_json(path)] if path.exists() else []
        kept = [finding for finding in before if finding.step < seen]
        found = [*kept, *self._monitor.findings]
        if self._strategy is not None and Worker.of(self._strategy).count > 1:
            replicas = self._strategy.num_replicas_in_sync
            found += disagreements(self._directory.gradients, replicas)
        return first_of_each(found)

    def _write_status(self, status: str) -> None:
        if not self._is_chief:
            return
        seconds = self._timer.seconds_per_step
        write_json(
            self._directory.status,
            {
                "status": status,
                "baseline": self._task.baseline,
                "baseline_label": self._task.baseline_label,
                "parameters": self._parameters(),
                "time_per_step": None if math.isnan(seconds) else seconds,
                "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._began)),
                "seconds": round(time.time() - self._began, 1),
                "backend": keras.backend.backend(),
                "versions": _versions(),
            },
        )

    def _parameters(self) -> int:
        return sum(math.prod(weight.shape) for weight in self._model.trainable_weights)


def _versions() -> dict[str, str]:
    """Return the versions of gradkeeper, Keras, its backend, and the reader of the data."""
    modules = ("gradkeeper", "keras", "tensorflow", keras.backend.backend())
    return {name: importlib.import_module(name).__version__ for name in modules}


def _has_weights(model: keras.Model) -> bool:
    """Return False if an exception inside a step of JAX has left a model without weights.

    Keras moves the weights into the first step of an epoch, and back after a complete step.
    """
    if keras.backend.backend() != "jax":
        return True
    try:
        model.get_weights()
    except (RuntimeError, TypeError):  # deleted by the step, or not moved back
        return False
    return True


def disagreements(log_dir: Path, replicas: int) -> Iterator[Finding]:
    """Yield findings about replicas that differ from those of the other workers.

    During training, each worker knows the gradients of its replicas only.

    Args:
        log_dir: the chief's log directory, which contains the directories of the other workers.
        replicas: number of replicas on all workers; steps without all of them are skipped.
    """
    rule = ReplicaDisagreement()
    for window in read_all_workers(log_dir):
        if window.replica_norms.shape[1] == replicas:
            yield from rule.check(window)
