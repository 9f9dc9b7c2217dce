"""The callback that records the true training gradients of any Keras model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from gradkeeper.callbacks.archive import Archive
from gradkeeper.callbacks.blindness import why_nothing_was_seen
from gradkeeper.callbacks.cost import Cost, CostMeter
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.epoch import EpochSummary
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.judge import Judge
from gradkeeper.callbacks.loop_steps import LoopSteps
from gradkeeper.callbacks.matching import Names
from gradkeeper.callbacks.rules import Rule, default_rules, rules_from
from gradkeeper.callbacks.settings import Optimizers, Settings, named_optimizers
from gradkeeper.callbacks.step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.stream import StepStream
from gradkeeper.callbacks.tap import Options, Recorder
from gradkeeper.callbacks.tap.optimizers import attribute_name, optimizers_of
from gradkeeper.callbacks.tap.readout import Track
from gradkeeper.callbacks.underway import Underway
from gradkeeper.callbacks.watched_loop import recorder_for, watched_loop
from gradkeeper.callbacks.workers import Worker, strategy_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientMonitor(StepCallback[Recorder]):
    """Records the gradient norm of every variable at every train step, and says what is wrong.

        monitor = GradientMonitor()
        model.fit(x, y, callbacks=[monitor])
        monitor.findings, monitor.history.norms, monitor.plot(), monitor.report("report.html")

    The norms are those of the gradients that the model is trained with, measured inside the
    compiled train step, before the optimizer's clipping and after it. Training is not
    changed: weights and losses are bit-identical with and without the monitor (under XLA, up
    to rounding in the last bit). Under a `tf.distribute` strategy the norms are those of the
    global batch, beside each replica's own.

    Epoch logs, for every callback that stands behind the monitor in the list (and History):
        grad_norm: mean over the epoch's finite steps of the global gradient norm before
            clipping; NaN if no step has a finite gradient.
        grad_norm_applied: the same after clipping.
        clip_fraction: share of the steps in which clipping changed a gradient, 0 to 1.
        nonfinite_steps: number of steps with a gradient that is not finite.

    Args:
        rules: the rules to follow, as instances or by name ("nonfinite"); all of
            `gradkeeper.callbacks.rules.RULES` by default. A rule that raises is left out
            from then on; its exception is printed, training and the other rules go on.
        optimizers: the optimizers whose calls are recorded, where the model does not hold
            them in attributes of its own; as a list, or by the names that `tracks` shall have.
        watch: what is recorded: "gradients" always, "updates" and "weights" on request (the
            norms of what each step changes, and of what it changes), and "max_abs" for each
            gradient's largest magnitude in every step instead of one of eight.
        layers: the layers or variables to record, all by default: names of layers as Keras has
            them ("memory"), paths, names of variables, or patterns ("*lstm*"); one or several.
        every_n_steps: of how many train steps one is measured.
        flush_every: train steps between two looks at what was recorded. A finding names its
            exact step, and is told at most so many steps later. By default 50, and up to 400
            where steps are so short that looking would cost more than a tenth of a percent.
        warmup: first train steps that are recorded but not judged, except by the rules `nonfinite`,
            `replica_disagreement` and others with `judges_warmup`.
        budget: the share of the training's time that the monitor may cost, such as 0.02.
            Measuring is thinned until it does; a non-finite value is then found at the next
            measured step, and the finding says between which steps it arose.
        log_dir: folder for the history as Parquet parts. Training goes on in it at the
            optimizer's count of steps: what it holds of earlier steps is taken up again, what
            it holds from that step on is replaced; so give each run a folder of its own.
            While one training writes to it, any other is refused. If it cannot be written,
            that is printed once and training goes on; what it lacks is written later if
            it can be, at the end of the training at the latest. With several workers, those
            beside the chief write to folders of their own in it, `worker-1` and so on.
        tensorboard_dir: folder for TensorBoard's event files.
        histograms: whether to take histograms of the gradients' magnitudes for TensorBoard, at
            one step in `flush_every`.
        epoch_logs: whether the keys above are added to the epoch's logs.
        verbose: 1 to print findings as they are made, 0 to print only what a rule or a
            file has raised.

    Raises:
        ValueError: on a bad argument.
        RuntimeError: if it is attached to a fit while another fit that it is attached to runs,
            or while another training writes to `log_dir`.
        TypeError: if it is attached to something that is no Keras 3 model.
    """

    def __init__(
        self,
        *,
        rules: Sequence[Rule | str] | None = None,
        optimizers: Optimizers | None = None,
        watch: Sequence[str] = ("gradients",),
        layers: Names | None = None,
        every_n_steps: int = 1,
        flush_every: int | None = None,
        warmup: int = 0,
        budget: float | None = None,
        log_dir: str | Path | None = None,
        tensorboard_dir: str | Path | None = None,
        histograms: bool = False,
        epoch_logs: bool = True,
        verbose: int = 1,
    ) -> None:
        super().__init__(Recorder)
        self._settings = Settings(
            optimizers=optimizers,
            watch=watch,
            layers=layers,
            every_n_steps=every_n_steps,
            flush_every=flush_every,
            warmup=warmup,
            budget=budget,
            histograms=histograms,
        )
        judges = default_rules() if rules is None else rules_from(rules)
        self._judge = Judge(judges, warmup=warmup, verbose=bool(verbose))
        self._archive = Archive(self.flush, log_dir, tensorboard_dir)
        self._epoch_logs = epoch_logs
        self._stream = StepStream()
        self._epoch = EpochSummary()
        self._meter = CostMeter(every_n_steps, budget)
        self._loops: dict[tuple[int, ...], tuple[Recorder, LoopSteps | None]] = {}
        self._loop_names: dict[int, str] = {}
        self._looping = self._told_blind = False
        self._told_masks: set[str] = set()
        self._unread, self._due = 0, self._settings.flush_every

    @property
    def history(self) -> GradientHistory:
        """All that was recorded, over every fit of this monitor."""
        return self._archive.history

    @property
    def tracks(self) -> dict[str, GradientHistory]:
        """The history of each optimizer by itself, by its name.

        The name is that of the model's attribute or, of an optimizer found elsewhere, its own.
        An optimizer that is called several times in a train step for the same variables has
        a track for each time.
        """
        self.flush()
        return self._archive.tracks

    @property
    def findings(self) -> list[Finding]:
        """What the rules have found, by step: the first of each rule and layer."""
        self.flush()
        return self._judge.findings

    @property
    def cost(self) -> Cost:
        """What this monitor has cost in this very run."""
        return self._meter.cost

    def plot(self, path: str | Path | None = None, *, layers: Names | None = None) -> "Figure":
        """Draw the global norm over steps and the norms per layer.

        Args:
            path: the file to save the picture in; none by default.
            layers: the layers or variables to draw, as for `GradientHistory.select`; all by
                default. The global norm is then that of these.

        Raises:
            ValueError: if a name matches no layer and no variable.
        """
        from gradkeeper.callbacks.plots import plot_history

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
        """Writes one HTML page that needs nothing else, pictures inside.

        Args:
            path: the page's file.
            title: the page's heading.
            facts: lines for the table at the top, beside what the history tells.
            figures: further pictures, by caption, before the gradient's own.
        """
        from gradkeeper.callbacks.report import write_report

        history, findings = self.history, self.findings
        facts = {**(facts or {}), "Cost of the monitor": str(self.cost)}
        return write_report(path, history, findings, title=title, facts=facts, figures=figures)

    @contextmanager
    def watch(
        self, optimizer: Optimizers, variables: Sequence[Any] | None = None
    ) -> Iterator["GradientMonitor"]:
        """Record a custom training loop.

            with monitor.watch(optimizer, model.trainable_variables):
                for x, y in dataset:
                    train_step(x, y)  # a tf.function that is first called in here, or eager code

        Every call of `optimizer.apply` is a train step. With several optimizers, a train step has
        one call of each; where one is called more often than another (five critic steps for each
        generator step), each of its calls begins a train step. Read `history` or call `flush` at
        least every 4,096 steps of a compiled loop.

        Args:
            optimizer: a Keras optimizer, several as a list, or several by the names that `tracks`
                shall have.
            variables: what is recorded, in this order; all variables by default.

        Raises:
            RuntimeError: if the monitor is attached to a fit that is running, or another
                training writes to `log_dir`.
            TypeError: if `optimizer` is not a Keras optimizer.
        """
        self._refuse_if_running(None, "watch()")
        names = named_optimizers(optimizer) or {}
        optimizers = list(names.values())
        if isinstance(optimizer, Mapping):
            self._loop_names.update({id(each): name for name, each in names.items()})
        given = None if variables is None else list(variables)
        key = tuple(map(id, (*optimizers, *(given or ()))))
        if key not in self._loops:
            steps = LoopSteps(len(optimizers)) if len(optimizers) > 1 else None
            self._loops[key] = recorder_for(self._settings, optimizers, given), steps
        recorder, steps = self._loops[key]
        held = given or [each for one in optimizers for each in getattr(one, "variables", ())]
        strategy = strategy_of(getattr(held[0], "value", None) if held else None)
        self._archive.open(lambda: self._looping, Worker.of(strategy))
        self._looping = True
        try:
            with watched_loop(recorder, optimizers, self, self._settings.flush_every):
                self._stream.follow(recorder, loop=steps)
                yield self
            self._tell_if_blind(optimizers)
        finally:
            self._looping = False
            self._stream.end_loop()
            self.close()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        underway = Underway(Driver.calling("on_train_begin"))
        self._archive.open(underway.is_running, Worker.of(strategy_of(self.model)))
        self._meter.fit_begins()
        self._end_comparison()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.flush()
        self._epoch = EpochSummary()

    # There is no on_train_batch_end: with one, Keras would have to wait for each step's logs
    # before it can begin the next step.
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._awaiting()
        if model is None:
            return
        if self._unread >= self._due:
            self._flush_if_due()
        self._unread += model.steps_per_execution
        driver = Driver.calling("on_train_batch_begin", self._attachment.driver)
        if self._attachment.arm(self._options, driver, self._settings.named_optimizers):
            self._follow(self._attachment.probe, model)

    def _flush_if_due(self) -> None:
        if self._settings.must_flush(self._unread, self._meter.look_is_affordable):
            self._tell_if_blind()
            self.flush()
        else:
            self._due = self._settings.asks_again(self._unread)

    def _options(self, model: keras.Model) -> Options:
        compiled = bool(model.jit_compile) and not model.run_eagerly
        return self._settings.options(model.steps_per_execution, compiled=compiled)

    def _follow(self, recorder: Recorder, model: keras.Model) -> None:
        """Reads from this recorder from now on."""
        self._take_up(model)
        if recorder is not self._stream.recorder:
            self._read()
        recorder.stopwatch = self._meter
        self._stream.follow(recorder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell_if_blind()
        self.flush()
        self._archive.flush()
        if logs is not None and self._epoch_logs:
            logs.update(self._epoch.logs())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Reads what is left and writes it to `log_dir` and `tensorboard_dir`.

        `fit` does so at its end; call it after a `fit` that raised or was interrupted.
        """
        self.flush()
        self._archive.close()
        self._end_comparison()
        self._stream.leave()
        self._attachment.end()

    def flush(self) -> None:
        """Reads what the train steps have recorded since the last look, and judges it."""
        self._unread, self._due = 0, self._settings.flush_every
        with self._meter.on_host():
            self._read()

    def _read(self) -> None:
        readout = self._stream.read(self)
        if readout is None:
            return
        window = readout.window
        self._archive.add(readout, self._track_name)
        self._epoch.add(window)
        if readout.lost:
            self._judge.tell(
                f"GradientMonitor lost {readout.lost:,} steps before step {window.steps[0]:,}: "
                "call its flush() more often."
            )
        self._judge.judge(window)
        self._tell_where_masks_end()

    def _tell_where_masks_end(self) -> None:
        recorder = self._stream.recorder
        ends = {} if recorder is None else recorder.masks_end_at
        for name in [each for each in ends if each not in self._told_masks]:
            self._told_masks.add(name)
            self._judge.tell(
                f"GradientMonitor: the mask ends at the layer {name!r} ({ends[name]}), whose "
                f"supports_masking is False (the default as of Keras 3.16). The layers after it "
                "and the loss treat padding as data. Set supports_masking = True on the layer "
                "before the training."
            )

    def _tell_if_blind(self, optimizers: Sequence[Any] | None = None) -> None:
        recorder = self._stream.recorder
        if self._told_blind or recorder is None or recorder.has_seen_gradients:
            return
        self._told_blind = True
        if optimizers is None:
            optimizers = self._settings.named_optimizers
        if optimizers is None:
            optimizers = optimizers_of(self._attachment.model)
        remedy = "name it: GradientMonitor(optimizers=[...])"
        self._judge.tell(
            why_nothing_was_seen("GradientMonitor", "records nothing", optimizers, remedy)
        )

    def _end_comparison(self) -> None:
        """Measures as asked for again, where a training ended while its cost was compared."""
        recorder = self._stream.recorder
        if recorder is not None and recorder.is_read_by(self):
            recorder.measure_every(self._meter.every)
            recorder.measure_twice(False)

    def _refuse_if_running(self, driver: Driver | None, received: str) -> None:
        if self._looping:
            raise RuntimeError(
                "This GradientMonitor watches a loop that is still running; give each training "
                f"a monitor of its own. Received: {received}"
            )
        super()._refuse_if_running(driver, received)

    def _take_up(self, model: keras.Model) -> None:
        """Takes up the steps that were trained, and perhaps recorded, before the first."""
        if self._stream.next_step is not None:
            return
        # Read at the first batch: BackupAndRestore has set the optimizer's count by then.
        first = steps_taken(model)
        self._stream.next_step = first
        self._archive.take_up(first)

    def _track_name(self, track: Track) -> str:
        optimizer, turn = track
        named = self._settings.optimizers or {}
        own = (name for name, each in named.items() if each is optimizer)
        given = next(own, None) or self._loop_names.get(id(optimizer))
        name = given or attribute_name(self._attachment.model, optimizer) or optimizer.name
        return name if turn == 0 else f"{name}, call {turn + 1}"
