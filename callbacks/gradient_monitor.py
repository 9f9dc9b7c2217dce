"""The callback that records the true training gradients of any Keras model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.rules import Rule, default_rules
from gradkeeper.callbacks.sinks import ParquetSink
from gradkeeper.callbacks.tap import Recorder, Tap
from gradkeeper.callbacks.tap.keras_private import print_msg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientMonitor(keras.callbacks.Callback):
    """Records the gradient norm of every variable at every train step, and says what is wrong.

        monitor = GradientMonitor()
        model.fit(x, y, callbacks=[monitor])
        monitor.findings, monitor.history.norms, monitor.plot(), monitor.report("report.html")

    The norms are those of the gradients that the model is trained with, measured inside the
    compiled train step, before the optimizer's clipping and after it. Training is not
    changed: weights and losses are bit-identical with and without the monitor.

    Epoch logs, for every callback that stands behind the monitor in the list (and History):
        grad_norm: mean over the epoch's steps of the global gradient norm before clipping.
        grad_norm_applied: the same after clipping.
        clip_fraction: share of the steps in which clipping changed a gradient, 0 to 1.

    Args:
        rules: the rules to follow; `gradkeeper.callbacks.rules.default_rules()` by default.
        flush_every: train steps between two looks at what was recorded. A finding names its
            exact step, and is told at most so many steps later.
        log_dir: folder for the history as Parquet parts. Training goes on in it at the
            optimizer's count of steps: what it holds of earlier steps is taken up again, what
            it holds from that step on is replaced; so give each run a folder of its own.
        verbose: 1 to print findings as they are made, 0 to keep quiet.

    Raises:
        ValueError: on a bad argument, and in `fit` under a strategy with several replicas.
        RuntimeError: if it is attached to a fit while another fit that it is attached to runs.
    """

    def __init__(
        self,
        *,
        rules: Sequence[Rule] | None = None,
        flush_every: int = 50,
        log_dir: str | Path | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        if flush_every < 1:
            raise ValueError(f"flush_every must be at least 1. Received: flush_every={flush_every}")
        self._rules = default_rules() if rules is None else _checked(rules)
        self._flush_every = flush_every
        self._sink = None if log_dir is None else ParquetSink(log_dir)
        self._verbose = verbose
        self._history = GradientHistory(refresh=self.flush)
        self._findings: dict[tuple[str, str], Finding] = {}
        self._driver: Driver | None = None
        # Not `self.model`: Keras sets that before a second fit can be refused.
        self._watched: keras.Model | None = None
        self._recorder: Recorder | None = None
        self._next_step: int | None = None
        self._rows = self._epoch_start = self._unread = 0
        self._told_blind = False

    @property
    def history(self) -> GradientHistory:
        """All that was recorded, over every fit of this monitor."""
        return self._history

    @property
    def findings(self) -> list[Finding]:
        """What the rules have found, by step: the first of each rule and layer."""
        self.flush()
        return sorted(self._findings.values(), key=lambda finding: finding.step)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draws global norm over steps and norms per layer; saved as well if a path is given."""
        from gradkeeper.callbacks.plots import plot_history

        figure = plot_history(self.history, self.findings)
        if path is not None:
            figure.savefig(path)
        return figure

    def report(
        self,
        path: str | Path,
        *,
        title: str = "Gradient report",
        facts: dict[str, str] | None = None,
        figures: "dict[str, Figure] | None" = None,
    ) -> Path:
        """Writes one HTML page that needs nothing else, pictures inside.

        Args:
            path: the page's file.
            title: the page's heading.
            facts: lines for the table at the top, beside what the history tells.
            figures: further pictures, by caption, before the gradient's own.
        """
        from gradkeeper.callbacks.report import write_report

        return write_report(
            path, self.history, self.findings, title=title, facts=facts, figures=figures
        )

    def set_model(self, model: keras.Model) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(
                "GradientMonitor needs a Keras 3 model (keras.Model); models of the legacy "
                f"tf_keras package are not supported. Received: {type(model)}"
            )
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "GradientMonitor reads the train step of Keras's TensorFlow backend. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        driver = Driver.calling("on_train_begin")
        if self._driver is not None and self._driver.is_running_beside(driver):
            refused = self.model
            super().set_model(self._watched)
            raise RuntimeError(
                "This GradientMonitor is attached to a fit that is still running; give each "
                f"fit a monitor of its own. Received: model={refused.name!r}"
            )
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                "GradientMonitor reads the gradients of one replica; train on one device, or "
                f"without the monitor. Received: {replicas} replicas under "
                f"{type(self.model.distribute_strategy).__name__}"
            )
        Tap.disarm(self.model)
        self._driver = driver
        self._watched = self.model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.flush()
        self._epoch_start = self._rows

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._watched
        if model is None or model.train_function is None:
            return
        if self._next_step is None:
            self._next_step = self._first_step(model)
        capacity = _power_of_two(self._flush_every + model.steps_per_execution)
        self._unread += model.steps_per_execution
        recorder = Tap.of(model).arm(self, capacity)
        if recorder is not self._recorder:
            self.flush()
            self._recorder = recorder

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._unread >= self._flush_every:
            self.flush()
        if not self._told_blind and self._recorder and not self._recorder.has_seen_gradients:
            self._told_blind = True
            print_msg(
                "\nGradientMonitor sees no gradients: this model's train step calls no "
                "optimizer's apply() or apply_gradients()."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.flush()
        if self._sink is not None:
            self._sink.flush()
        if logs is not None and self._rows > self._epoch_start:
            logs.update(self._epoch_logs())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Reads what is left and writes it to `log_dir`.

        `fit` does so at its end; call it after a `fit` that raised or was interrupted.
        """
        self.flush()
        if self._sink is not None:
            self._sink.flush()
        self._driver = self._watched = None

    def flush(self) -> None:
        """Reads what the train steps have recorded since the last look, and judges it."""
        self._unread = 0
        recorded = self._recorder.drain() if self._recorder else None
        if recorded is None or self._next_step is None:
            return
        steps = self._next_step + np.arange(len(recorded))
        window = dataclasses.replace(recorded, steps=steps)
        self._next_step += len(window)
        self._rows += len(window)
        self._history.append(window)
        if self._sink is not None:
            self._sink.write(window)
        found = [finding for rule in self._rules for finding in rule.check(window)]
        for finding in sorted(found, key=lambda finding: finding.step):
            self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        key = finding.rule, finding.layer
        if key not in self._findings:
            self._findings[key] = finding
            if self._verbose:
                print_msg(f"\nGradientMonitor {finding}")

    def _first_step(self, model: keras.Model) -> int:
        # Read at the first batch: BackupAndRestore has set the optimizer's count by then.
        optimizer = model.optimizer
        first = int(optimizer.iterations) if optimizer is not None else 0
        if self._sink is not None:
            for window in self._sink.keep_before(first):
                self._history.append(window)
                self._rows += len(window)
            self._epoch_start = self._rows
        return first

    def _epoch_logs(self) -> dict[str, float]:
        window = self._history.since(self._epoch_start)
        applied = window.applied_global_norm[window.updated.any(axis=1)]
        return {
            "grad_norm": float(window.global_norm.mean()),
            "grad_norm_applied": float(applied.mean()) if len(applied) else float("nan"),
            "clip_fraction": window.clip_fraction,
        }


def _checked(rules: Sequence[Rule]) -> list[Rule]:
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(
                f"rules must be instances of gradkeeper.callbacks.rules.Rule. Received: {rule!r}"
            )
    return list(rules)


def _power_of_two(steps: int) -> int:
    return 1 << max(steps - 1, 255).bit_length()
