"""`GradientMonitor`: callback that records and checks the training gradients of a model."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import keras

from gradkeeper.callbacks._backend import Recorder
from gradkeeper.callbacks._fit_frame import RunningFit
from gradkeeper.callbacks._step_callback import StepCallback, calls_taken, steps_taken
from gradkeeper.callbacks._text import Names, listed, print_failure
from gradkeeper.callbacks._workers import Worker, strategy_of
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.instrument.optimizers import attribute_name
from gradkeeper.callbacks.measurements.registry import Measurement
from gradkeeper.callbacks.recording.history import EpochSummary, GradientHistory, Histories
from gradkeeper.callbacks.recording.reader import Track
from gradkeeper.callbacks.recording.record_stream import LoopSteps, RecordStream
from gradkeeper.callbacks.recording.settings import (
    Optimizers,
    Overhead,
    Schedule,
    Settings,
    named_optimizers,
)
from gradkeeper.callbacks.rules.registry import RuleRunner, default_rules, rules_from
from gradkeeper.callbacks.rules.rule import Rule
from gradkeeper.callbacks.sinks.alerts import Alerts, AlertSink
from gradkeeper.callbacks.sinks.multi import MultiSink
from gradkeeper.callbacks.sinks.registry import sinks_from
from gradkeeper.callbacks.sinks.sink import Sink

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientMonitor(StepCallback[Recorder]):
    """Callback that records the gradient norms of every train step and reports problems.

        monitor = GradientMonitor()
        model.fit(x, y, callbacks=[monitor])
        monitor.findings, monitor.history.norms, monitor.plot(), monitor.report("report.html")

    The monitor records the gradients that train the model. The L2 norms are computed inside the
    compiled train step, before and after the clipping of the optimizer. Training is not changed:
    weights and losses are bit-identical with and without the monitor (under XLA, up to rounding
    in the last bit). Under a `tf.distribute` strategy, the monitor records the norms of the
    global batch and the norms of each replica.

    Epoch logs, for `History` and for every callback after the monitor in the list:
        grad_norm: mean global gradient norm before clipping, over the finite steps of the epoch;
            NaN if no step has a finite gradient.
        grad_norm_applied: mean global gradient norm after clipping, over the finite steps.
        clip_fraction: share of the steps in which clipping changed a gradient, 0 to 1.
        nonfinite_steps: number of steps with a non-finite gradient.

    Args:
        rules: rules, as instances or by name ("nonfinite"); all of
            `gradkeeper.callbacks.rules.RULES` by default. If a rule raises, the exception is
            printed and the rule is disabled. Training and the other rules continue.
        optimizers: optimizers to record, if they are not attributes of the model; as a list, or
            as a dict whose keys are the names in `by_optimizer`.
        watch: statistics to record. "gradients" is always included. "updates" adds the norms of
            the updates, "weights" adds the norms of the weights before the update. "max_abs"
            records the largest magnitude of each gradient in every step instead of every eighth.
        measurements: further statistics of each variable: `Measurement` objects, or names of
            registered measurements. "optimizer" stands for `first_moment_rms`,
            `second_moment_rms`, `update_rms`, `gradient_cosine` and `momentum_cosine`.
            "activations" records the output of each layer (`Activations`), in `fit` only.
        layers: layers or variables to record, all by default: Keras layer names ("memory"),
            paths, variable names, or patterns ("*lstm*"); one or several.
        every_n_steps: measure one in this many train steps.
        flush_every: number of train steps between two flushes of the ring buffers. A finding
            names its exact step and is printed at most this many steps later. By default 50, and
            up to 400 if a flush takes more than 0.1 % of the time since the last flush.
        warmup: number of first train steps that are recorded but not checked, except by the rules
            `nonfinite`, `replica_disagreement` and others with `active_during_warmup`.
        budget: allowed share of the training time, such as 0.02. The monitor measures fewer steps
            until the overhead is within the budget. A non-finite value is then found at the next
            measured step, and the finding names the steps between which the value arose.
        log_dir: directory for the history as Parquet parts. Use a separate directory for each
            run. A resumed run loads the earlier steps and replaces the later ones. It continues at
            the step count of the optimizer, or at the first step of `initial_epoch` if that is
            later: optimizers do not count the steps that loss scaling or a guard has skipped. Only
            one run at a time can write to the directory. If writing fails, the exception is
            printed once and training continues. The missing steps are written later, at the
            latest at the end of the run. With several workers, each worker except the chief
            writes to a subdirectory, such as `worker-1`.
        tensorboard_dir: directory for TensorBoard event files.
        histograms: whether to write histograms of the gradient magnitudes to TensorBoard, for
            one in `flush_every` steps.
        sinks: further sinks, which receive every recorded train step, as instances or by name:
            "wandb", "mlflow", "trackio" or "jsonl". Experiment trackers are called in a background
            thread. They also receive the findings, and the report at the end of each `fit`.
        alerts: a function that is called with each finding, or the URL of a webhook, or a
            `gradkeeper.callbacks.sinks.Webhook`. Each finding is sent once, at most `flush_every`
            steps after its step, in a background thread.
        epoch_logs: whether to add the keys above to the epoch logs.
        verbose: 1 to print each finding, 0 to print only exceptions of rules and sinks.

    Raises:
        ImportError: if the client of a tracker named in `sinks` is not installed.
        ValueError: if an argument is invalid.
        RuntimeError: if the monitor is attached to a second `fit` while the first is running, or
            if another run writes to `log_dir`.
        TypeError: if the monitor is attached to an object that is not a Keras 3 model.
    """

    _backends = ("tensorflow", "jax", "torch")
    _loop_words = ("watches a loop", "monitor for each run")

    def __init__(
        self,
        *,
        rules: Sequence[Rule | str] | None = None,
        optimizers: Optimizers | None = None,
        watch: Sequence[str] = ("gradients",),
        measurements: Sequence[Measurement | str] = (),
        layers: Names | None = None,
        every_n_steps: int = 1,
        flush_every: int | None = None,
        warmup: int = 0,
        budget: float | None = None,
        log_dir: str | Path | None = None,
        tensorboard_dir: str | Path | None = None,
        histograms: bool = False,
        sinks: Sequence[Sink | str] = (),
        alerts: Alerts | None = None,
        epoch_logs: bool = True,
        verbose: int = 1,
    ) -> None:
        super().__init__(Recorder)
        self._schedule = Schedule(every_n_steps, flush_every, budget)
        self._settings = Settings(
            optimizers=optimizers,
            watch=watch,
            measurements=measurements,
            layers=layers,
            schedule=self._schedule,
            warmup=warmup,
            histograms=histograms,
        )
        chosen = default_rules() if rules is None else rules_from(rules)
        self._rules = RuleRunner(chosen, warmup=warmup, verbose=bool(verbose))
        self._histories = Histories(self.flush)
        further = [*sinks_from(sinks), *([] if alerts is None else [AlertSink(alerts)])]
        self._sinks = MultiSink(log_dir, tensorboard_dir, further, self._histories.recent)
        self._epoch_logs = epoch_logs
        self._stream = RecordStream()
        self._epoch = EpochSummary()
        self._loops: dict[tuple[int, ...], tuple[Recorder, LoopSteps | None]] = {}
        self._loop_names: dict[int, str] = {}
        self._has_reported_hidden = False
        self._steps_before = 0
        self._has_other_model = False

    @property
    def history(self) -> GradientHistory:
        """History of all recorded train steps, over all `fit` calls of this monitor."""
        return self._histories.total

    @property
    def by_optimizer(self) -> dict[str, GradientHistory]:
        """History of each optimizer, by name.

        The name is that of the model attribute, or `optimizer.name` if the model has no such
        attribute. An optimizer that is called several times per train step for the same
        variables has one history for each of these calls.
        """
        self.flush()
        return self._histories.by_optimizer

    @property
    def findings(self) -> list[Finding]:
        """Findings in the order of their steps: the first finding of each rule and layer."""
        self.flush()
        return self._rules.findings

    @property
    def overhead(self) -> Overhead:
        """Measured overhead of this monitor."""
        return self._schedule.meter.overhead

    def plot(self, path: str | Path | None = None, *, layers: Names | None = None) -> "Figure":
        """Plot the global norm and the norms per layer over the train steps.

        Args:
            path: the file to save the figure to; not saved by default.
            layers: the layers or variables to plot, as in `GradientHistory.select`; all by
                default. The global norm covers the selected variables only.

        Raises:
            ValueError: if a name matches neither a layer nor a variable.
        """
        from gradkeeper.callbacks.reporting.plots import plot_history

        history = self.history if layers is None else self.history.select(layers)
        figure = plot_history(history, self.findings)
        if path is not None:
            figure.savefig(path)
        return figure

    def report(
        self,
        path: str | Path,
        *,
        title: str = "Gradient report",
        facts: Mapping[str, str] | None = None,
        figures: "Mapping[str, Figure] | None" = None,
    ) -> Path:
        """Write a self-contained HTML report with embedded figures.

        Args:
            path: the file to write.
            title: heading of the page.
            facts: additional rows for the table at the top, by label.
            figures: additional figures, by caption, placed before the gradient figures.
        """
        from gradkeeper.callbacks.reporting.report import write_report

        history, findings = self.history, self.findings
        facts = {**(facts or {}), "Overhead of the monitor": str(self.overhead)}
        return write_report(path, history, findings, title=title, facts=facts, figures=figures)

    @contextmanager
    def watch(
        self, optimizer: Optimizers, variables: Sequence[Any] | None = None
    ) -> Iterator["GradientMonitor"]:
        """Record a custom training loop.

            with monitor.watch(optimizer, model.trainable_variables):
                for x, y in dataset:
                    train_step(x, y)  # eager, or a tf.function first called inside this block

        Every call of `optimizer.apply` is a train step. With several optimizers, a train step has
        one call of each. If one optimizer is called more often than another (five critic steps per
        generator step), each of its calls begins a train step. In a compiled loop, read `history`
        or call `flush` at least every 4,096 steps.

        Args:
            optimizer: a Keras optimizer, a list of optimizers, or a dict whose keys are the names
                in `by_optimizer`.
            variables: the variables to record, in this order; all variables by default.

        Raises:
            RuntimeError: if the monitor is attached to a running `fit`, or if another run writes
                to `log_dir`; or on another backend than TensorFlow.
            TypeError: if `optimizer` is not a Keras optimizer.
            ValueError: if "activations" is measured, which requires `fit`.
        """
        self._refuse_loop_without_tensorflow()
        from gradkeeper.callbacks.instrument.eager_flush import EagerFlush
        from gradkeeper.callbacks.instrument.step_patches import StepPatches

        self._refuse_if_running(None, "watch()")
        names = named_optimizers(optimizer) or {}
        optimizers = list(names.values())
        if isinstance(optimizer, Mapping):
            self._loop_names.update({id(each): name for name, each in names.items()})
        given = None if variables is None else list(variables)
        key = tuple(map(id, (*optimizers, *(given or ()))))
        if key not in self._loops:
            steps = LoopSteps(len(optimizers)) if len(optimizers) > 1 else None
            # Later loops reuse the recorder: their functions are already traced with it.
            recorder = Recorder(
                self._settings.options(None), variables=given, optimizers=tuple(optimizers)
            )
            self._loops[key] = recorder, steps
        recorder, steps = self._loops[key]
        held = given or [each for one in optimizers for each in getattr(one, "variables", ())]
        strategy = strategy_of(getattr(held[0], "value", None) if held else None)
        self._sinks.open(lambda: self._loop is not None, Worker.of(strategy))
        self._loop = recorder
        try:
            recorder.acquire(self)
            flush = EagerFlush(self, self._schedule.flush_every)
            with StepPatches([recorder, flush], optimizers).applied():
                if self._stream.numbering.next_step is None:
                    self._begin_at(max(map(calls_taken, optimizers), default=0))
                self._stream.follow(recorder, loop=steps)
                yield self
            self._warn(optimizers)
        finally:
            self._loop = None
            self._stream.loop_has_ended = True
            self.close()

    def set_model(self, model: keras.Model) -> None:
        former = self.model
        super().set_model(model)
        self._has_other_model = former is not None and former is not model

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self._has_other_model:
            self._rules.begin_run()
        self._has_other_model = False
        self._sinks.open(RunningFit().is_running, Worker.of(strategy_of(self.model)))
        self._schedule.meter.fit_begins()
        self._end_overhead_comparison()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.flush()
        self._epoch = EpochSummary()
        self._steps_before = epoch * (self._steps_per_epoch or 0)

    # on_train_batch_end is not defined, because with it Keras waits for the logs of each step
    # before it starts the next step.
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._model_in_training()
        if model is None:
            return
        if self._schedule.flush_is_due():
            self._warn()
            self.flush()
        self._schedule.add(model.steps_per_execution)
        recorder = self._observe_next_step(self._settings.options, self._settings.named_optimizers)
        if recorder is not None:
            self._resume(model)
            if recorder is not self._stream.recorder:
                self._read()
            recorder.timer = self._schedule.meter
            self._stream.follow(recorder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._warn()
        self.flush()
        self._sinks.flush()
        if logs is not None and self._epoch_logs:
            logs.update(self._epoch.logs())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Read the remaining records, write them to all sinks and close the sinks.

        Wait for each sink in a background thread at most 10 seconds. A sink that needs longer
        continues while the process runs.

        `fit` calls `close` at its end. After a `fit` that raised or was interrupted, call `close`
        yourself.
        """
        self.flush()
        self._write_report()
        self._sinks.close()
        self._end_overhead_comparison()
        self._stream.recorder = None  # it keeps the variables of the model alive
        super().on_train_end()

    def flush(self) -> None:
        """Read the steps recorded since the last flush, and apply the rules to them."""
        self._schedule.flushed()
        with self._schedule.meter.on_host(self._stream.recorder):
            self._read()

    def _read(self) -> None:
        records = self._stream.read(self)
        if records is None:
            return
        facts = dataclasses.replace(records.window.facts, steps_per_epoch=self._steps_per_epoch)
        window = dataclasses.replace(records.window, facts=facts)
        named = {self._optimizer_name(track): part for track, part in records.by_optimizer.items()}
        self._histories.add(window, named)
        try:
            for finding in self._rules.check(window):
                self._sinks.write_finding(finding)
        finally:  # an interrupt of a rule loses no step
            self._sinks.write(window)
        for step, histograms in records.histograms.items():
            self._sinks.write_histograms(step, histograms)
        self._epoch.add(window)
        if records.lost:
            self._rules.report(
                f"GradientMonitor lost {records.lost:,} steps before step {window.steps[0]:,}: "
                "call monitor.flush() more often."
            )
        recorder = self._stream.recorder
        hidden = [] if recorder is None else list(recorder.hidden_layers)
        if hidden and not self._has_reported_hidden:
            self._has_reported_hidden = True
            self._rules.report(
                f"GradientMonitor records no activations of {listed(hidden)}: the layers were "
                "created in a keras.RematScope, or are called in a tf.function, tf.cond or loop "
                "inside the train step."
            )

    def _write_report(self) -> None:
        """Write the report for the sinks that store it."""
        if not self._sinks.takes_report or not len(self._histories.total):
            return
        try:
            with TemporaryDirectory() as folder:
                self._sinks.write_report(self.report(Path(folder) / "gradients.html"))
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            print_failure("the report for the sinks", error, "Training and the history continue.")

    def _warn(self, optimizers: Sequence[keras.optimizers.Optimizer] | None = None) -> None:
        self._warn_if_no_gradients(
            "records nothing",
            observer=self._stream.recorder,
            optimizers=self._settings.named_optimizers if optimizers is None else optimizers,
            remedy="pass it: GradientMonitor(optimizers=[...])" if self._loop is None else "",
            report=self._rules.report,
        )

    def _end_overhead_comparison(self) -> None:
        """Restore the measuring interval if a run ended during the overhead comparison."""
        recorder = self._stream.recorder
        if recorder is not None and recorder.is_owned_by(self):
            recorder.measure_every(self._schedule.meter.every)
            recorder.measure_twice(False)

    def _resume(self, model: keras.Model) -> None:
        """Set the number of the first step, and load the recorded steps before it."""
        if self._stream.numbering.next_step is not None:
            return
        # Not before the first batch: until then, BackupAndRestore may change the step count.
        # Optimizers do not count the steps that were skipped.
        self._begin_at(max(steps_taken(model), self._steps_before))

    @property
    def _steps_per_epoch(self) -> int | None:
        """Train steps per epoch of `fit`; None if unknown, and in a custom loop."""
        return None if self._loop is not None else (self.params or {}).get("steps")

    def _begin_at(self, step: int) -> None:
        self._stream.numbering.next_step = step
        for window in self._sinks.truncate_from(step):
            self._histories.total.append(window)

    def _optimizer_name(self, track: Track) -> str:
        optimizer, round = track
        named = self._settings.optimizers or {}
        own = (name for name, each in named.items() if each is optimizer)
        given = next(own, None) or self._loop_names.get(id(optimizer))
        name = given or attribute_name(self._trained_model, optimizer) or optimizer.name
        return name if round == 0 else f"{name}, call {round + 1}"
