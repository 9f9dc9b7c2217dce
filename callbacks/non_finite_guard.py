"""Callback that keeps NaN and Inf out of the weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import keras

from gradkeeper._arguments import choice, integer, number
from gradkeeper.callbacks._backend import SkipTransform
from gradkeeper.callbacks._fit_frame import sibling_callbacks
from gradkeeper.callbacks._keras_private import print_msg
from gradkeeper.callbacks._step_callback import StepCallback, no_gradients_warning, steps_taken
from gradkeeper.callbacks._workers import Worker, strategy_of
from gradkeeper.callbacks.capsule.model import own_parts_of, state_of
from gradkeeper.callbacks.capsule.writer import CapsuleDirectory, Contents
from gradkeeper.callbacks.guard.event import GuardEvent, NonFiniteGradientError
from gradkeeper.callbacks.guard.options import FailureCapture, SkipOptions
from gradkeeper.callbacks.guard.snapshot import Snapshot
from gradkeeper.callbacks.guard.trigger import NormAbove, Trigger
from gradkeeper.callbacks.recording.rows import StepNumbering

Policy: TypeAlias = Literal["stop", "skip", "rollback", "raise", "warn"]


class NonFiniteGuard(StepCallback[SkipTransform]):
    """Callback that skips train steps with NaN or Inf values.

        model.fit(..., callbacks=[NonFiniteGuard()])

    The checks are part of the compiled train step. Before the update, the guard checks every
    gradient, the loss, the learning rate, and the values that the forward pass assigns to moving
    averages and other variables of layers. Where finite gradients can give a non-finite update
    (see `check_updates`), it checks trained variables and optimizer variables after the update.

    A skipped step leaves weights, optimizer variables, the optimizer's step count, moving
    averages, layer states (`LSTM(stateful=True)`), metrics and random seeds unchanged. Training
    continues as if the dataset did not contain the batch. Under a `tf.distribute` strategy, all
    replicas skip a step that is bad on one of them. A run without skipped steps is bit-identical
    to a run without the guard.

    With a `LossScaleOptimizer`, gradients overflow occasionally, and the optimizer skips these
    steps. The guard skips them only if the loss is non-finite as well or the scale is below 1.

    The guard writes a capsule of a bad step: a directory with the batch, the model's state
    before the step and the recorded statistics. `gradkeeper replay DIRECTORY` runs the step again
    and names the operation that produced the first NaN or Inf. Of several bad steps in one
    execution (`steps_per_execution`), only the first has a capsule. Under XLA, "warn" writes no
    capsule, because an applied step overwrites the state.

    Epoch logs, for History and every callback that follows the guard in the list:
        skipped_steps: number of steps skipped in the epoch. Loss and metrics are means over the
            applied steps; NaN if every step was skipped. The progress bar shows NaN until a step
            of the epoch is applied.

    Args:
        policy: the action after a bad step.
            "stop": stop training. Weights and backups of BackupAndRestore are kept.
            "skip": continue; stop after `max_consecutive` skipped steps in a row.
            "rollback": restore weights and optimizer from the last snapshot, multiply the
                learning rate by `lr_factor`, and continue with the next batch; stop after
                `max_rollbacks` rollbacks.
            "raise": raise `NonFiniteGradientError`.
            "warn": apply the step, and print a message.
        trigger: condition that also skips steps with a finite but too large gradient:
            `NormAbove(bound)`, a number as short form of it, or `NormZScore(z, window)`.
        check_loss: whether to skip a step with a non-finite loss whose gradients are finite. The
            loss is the return value of `compute_loss`, or else the loss in the logs that a custom
            `train_step` returns ("loss" or "*_loss").
        check_updates: whether to check variables and optimizer after each update. None to check
            where finite gradients can give a non-finite update: float16 variables, an optimizer
            whose epsilon is 0 or underflows, `RMSprop(centered=True)`, optimizers and
            constraints that are not part of Keras.
        max_consecutive: see "skip".
        snapshot_every: train steps between two snapshots in memory, see "rollback".
        lr_factor: see "rollback".
        max_rollbacks: see "rollback".
        capsule_dir: directory for the capsules; None to write none. With several workers, each
            worker except the chief writes capsules with its own part of the batch to a
            subdirectory (`worker-1`, ...).
        capsule_data: whether capsules contain the batch. To replay a capsule without a batch,
            pass the batch to `replay`.
        max_capsules: the largest number of capsules in total.
        max_bytes: the largest size of a capsule's arrays, in bytes. Arrays that do not fit are
            omitted and listed in the capsule.
        verbose: 1 to print a message for each bad step, 0 to print nothing.

    Attributes:
        events: a `GuardEvent` for each bad step.
        skipped: number of skipped steps.
        rollbacks: number of rollbacks to a snapshot.

    Raises:
        ValueError: if an argument is invalid.
        TypeError: if the callback is attached to an object that is not a Keras 3 model.
    """

    _backends = ("tensorflow", "jax", "torch")
    _loop_words = ("guards a loop", "guard for each training")

    def __init__(
        self,
        policy: Policy = "stop",
        *,
        trigger: Trigger | float | None = None,
        check_loss: bool = True,
        check_updates: bool | None = None,
        max_consecutive: int = 10,
        snapshot_every: int = 100,
        lr_factor: float = 0.5,
        max_rollbacks: int = 3,
        capsule_dir: str | Path | None = "capsules",
        capsule_data: bool = True,
        max_capsules: int = 3,
        max_bytes: int = 2**30,
        verbose: int = 1,
    ) -> None:
        super().__init__(SkipTransform)
        choice("policy", policy, get_args(Policy))
        integer("max_consecutive", max_consecutive)
        integer("snapshot_every", snapshot_every)
        integer("max_rollbacks", max_rollbacks)
        number("lr_factor", lr_factor, "(0, 1]")
        self.events: list[GuardEvent] = []
        self.skipped = self.rollbacks = 0
        self._policy = policy
        self._options = SkipOptions(
            refuses=policy != "warn",
            halts_after=max_consecutive if policy == "skip" else 1,
            checks_loss=check_loss,
            checks_updates=check_updates,
            trigger=NormAbove(float(trigger)) if isinstance(trigger, (int, float)) else trigger,
            keeps=capsule_dir is not None,
            keeps_batch=capsule_data,
        )
        self._capsules = (
            None
            if capsule_dir is None
            else CapsuleDirectory(capsule_dir, max_capsules=max_capsules, max_bytes=max_bytes)
        )
        self._snapshot_every, self._lr_factor = snapshot_every, lr_factor
        self._max_rollbacks, self._verbose = max_rollbacks, verbose
        self._numbering = StepNumbering()
        self._skipped_before = self._taken_before = 0
        self._snapshot: Snapshot | None = None
        self._pending: list[GuardEvent] = []
        self._has_halted = self._epoch_has_loss = False
        self._bars: dict[keras.callbacks.ProgbarLogger, Callable[..., None]] = {}
        self._backups: list[keras.callbacks.BackupAndRestore] = []
        self._loop: tuple[SkipTransform, keras.Model] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._policy == "rollback" and self._lr_factor != 1:
            rate = getattr(self.model.optimizer, "learning_rate", None)
            if not isinstance(rate, keras.Variable):
                raise ValueError(
                    "policy='rollback' cannot lower the learning rate of a LearningRateSchedule, "
                    "or of a model without `model.optimizer`. Set lr_factor=1. "
                    f"Received: learning_rate={rate}, lr_factor={self._lr_factor}"
                )
        super().on_train_begin(logs)
        if self._capsules is not None:
            self._capsules.set_worker(Worker.of(strategy_of(self.model)))
        self._backups = sibling_callbacks(keras.callbacks.BackupAndRestore)
        for bar in sibling_callbacks(keras.callbacks.ProgbarLogger):
            self._bars[bar] = bar.on_train_batch_end
            bar.on_train_batch_end = self._without_zeros(bar.on_train_batch_end)
        self._snapshot = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._skipped_before, self._taken_before = self.skipped, steps_taken(self.model)
        self._epoch_has_loss = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._model_in_training()
        if model is None:
            return
        if self._may_have_events():
            self._handle_events()
        self._warn_if_no_gradients("skips no steps")
        step = self._numbering.next_step or 0
        if self._policy == "rollback" and (
            self._snapshot is None or step >= self._snapshot.step + self._snapshot_every
        ):
            self._snapshot = Snapshot(
                self.model, step
            )  # on JAX, `self.model` has the current values
        observer = self._observe_next_step(self._options_for)
        if observer is not None:
            observer.resume()  # the previous run may have ended while every step was skipped
            if self._numbering.next_step is None:
                self._numbering.next_step = steps_taken(model)
            self._numbering.start(observer.status().steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._handle_events()
        self._warn_if_no_gradients("skips no steps")
        if logs is None:
            return
        skipped = logs["skipped_steps"] = self.skipped - self._skipped_before
        has_optimizer = getattr(self.model, "optimizer", None) is not None
        if skipped and has_optimizer and steps_taken(self.model) == self._taken_before:
            # Keras returns 0 for the mean over no steps.
            means = self.model.get_metrics_result()
            logs.update(dict.fromkeys(set(means) & set(logs), float("nan")))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        try:
            self._handle_events()
        finally:
            self._end_halt()
        super().on_train_end(logs)
        for bar, show in self._bars.items():
            bar.on_train_batch_end = show
        self._snapshot, self._backups, self._bars = None, [], {}

    @contextmanager
    def watch(
        self,
        optimizer: Any,
        variables: Sequence[Any] | None = None,
        *,
        step: Callable[..., Any] | None = None,
    ) -> Iterator[Callable[..., Any] | None]:
        """Guard a custom training loop.

            with guard.watch(optimizer, model.trainable_variables, step=train_step) as guarded:
                for x, y in dataset:
                    guarded(x, y)

        `train_step` is eager code or a `tf.function` that is first called inside the block. A
        skipped step leaves `variables` and optimizers unchanged. Its capsule contains the
        arguments of the step: `replay(capsule, guarded.model)`. A skipped step raises
        `NonFiniteGradientError` with the policies "stop" and "raise"; with "skip", the last of
        `max_consecutive` skipped steps in a row does.

        Without `step`, each call of `optimizer.apply` is a step. Gradients and learning rate are
        checked before the update, no capsule is written, and events are read at the end of the
        block and by `flush`.

        Args:
            optimizer: a Keras optimizer, or a list of optimizers.
            variables: the variables to train; those of the optimizers by default.
            step: the function that computes gradients and calls the optimizers.

        Yields:
            The guarded step; None without `step`.

        Raises:
            RuntimeError: if the guard is attached to a running fit or guards a running loop; or on
                another backend than TensorFlow.
            ValueError: if the policy is "rollback", which needs a model.
        """
        self._refuse_loop_without_tensorflow()
        from gradkeeper.callbacks.guard.loop import GuardedStep, StepModel
        from gradkeeper.callbacks.instrument.step_patches import StepPatches

        self._refuse_if_running(None, "watch()")
        if self._policy == "rollback":
            raise ValueError(
                "policy='rollback' needs model.fit. Use another policy in a custom loop. "
                "Received: watch()"
            )
        optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
        model = StepModel(step, optimizers, variables)
        keeps = self._options.keeps and step is not None
        transform = SkipTransform(dataclasses.replace(self._options, keeps=keeps), model)
        transform.acquire(self)
        self._loop = transform, model
        self._numbering.start(0)
        try:
            if step is not None:
                yield GuardedStep(model, transform, self._handle_events)
            else:
                with StepPatches([transform], optimizers).applied():
                    yield None
                self._handle_events()
            if not transform.has_seen_gradients:
                print_msg(no_gradients_warning("NonFiniteGuard", "skips no steps", optimizers, ""))
        finally:
            self._loop = None

    @property
    def _transform(self) -> SkipTransform | None:
        """Return the transform whose events this guard reads, or None."""
        if self._loop is not None:
            return self._loop[0]
        observer = self._observer
        return observer if observer is not None and observer.is_owned_by(self) else None

    @property
    def _guarded_model(self) -> keras.Model | None:
        """Return the trained model, or the step of a custom loop as a model.

        On JAX, this copies the current values into the variables of the model.
        """
        if self._loop is not None:
            return self._loop[1]
        return None if self._trained_model is None else self.model

    def flush(self) -> None:
        """Read the bad steps since the last call into `events`, and write their capsules."""
        transform = self._transform
        if transform is None:
            return
        status = transform.status()
        self._numbering.advance(status.steps)
        self._has_halted |= status.has_halted
        if not status.has_skips:
            transform.discard(status)
            return
        events, count, kept = transform.drain()
        self.skipped += count if self._options.refuses else 0
        for event in events:
            mine = kept if kept is not None and kept.step == event.step else None
            event = dataclasses.replace(event, step=event.step + self._numbering.offset)
            capsule = self._write_capsule(event, mine)
            parts = () if capsule is None else own_parts_of(self._guarded_model)
            self.events.append(dataclasses.replace(event, capsule=capsule, own_parts=parts))
            self._pending.append(self.events[-1])
            kept = None if mine is not None else kept

    def _without_zeros(self, show: Callable[..., None]) -> Callable[..., None]:
        """Return the hook of a progress bar that shows NaN until a step of the epoch is applied.

        Keras returns 0 for the mean over no steps. The batch logs are not changed, because
        TerminateOnNaN reads them. The values of the progress bar are on the host already.
        """

        def on_train_batch_end(batch: int, logs: dict[str, Any] | None = None) -> None:
            if logs and logs.get("loss") != 0:
                self._epoch_has_loss = True
            if not self._epoch_has_loss and self._has_skipped_in_epoch():
                nan = float("nan")
                logs = {name: value or nan for name, value in (logs or {}).items()}
            show(batch, logs)

        return on_train_batch_end

    def _has_skipped_in_epoch(self) -> bool:
        """Return True if a step of the epoch was skipped. On JAX, do not read the model here.

        Keras may call a progress bar in another thread.
        """
        if self.skipped > self._skipped_before:
            return True
        if keras.backend.backend() != "tensorflow":
            return self._observer is not None and self._observer.has_unread_skips
        return self._may_have_events() and steps_taken(self.model) == self._taken_before

    def _may_have_events(self) -> bool:
        """Return True if the guard may have to act before the next step."""
        if self._pending or self._has_halted or self._policy == "rollback":
            return True
        return self._observer is None or self._observer.may_have_skips

    def _options_for(self, model: keras.Model) -> SkipOptions:
        self.flush()  # last chance to read this transform if the next step uses another one
        outruns = self._policy == "skip" and (
            model.steps_per_execution > 1 or keras.backend.backend() != "tensorflow"
        )
        return dataclasses.replace(self._options, outruns_host=outruns)

    def _handle_events(self) -> None:
        """Read the bad steps since the last call, and act as the policy says."""
        self.flush()
        events, self._pending = self._pending, []
        halted, self._has_halted = self._has_halted, False
        if not events or (model := self._guarded_model) is None:
            return
        self._report(events)
        if self._policy == "raise" or (self._loop is not None and halted):
            self._end_halt()
            raise NonFiniteGradientError(events[0])
        if not halted:
            return
        if self._snapshot is not None and self.rollbacks < self._max_rollbacks:
            self.rollbacks += 1
            self._snapshot.restore(self._lr_factor)
            self._end_halt()
            return
        if self._verbose:
            print_msg("NonFiniteGuard: training stops.")
        model.stop_training = True
        for backup in self._backups:  # not to be deleted at the end of the training
            backup.delete_checkpoint = False

    def _end_halt(self) -> None:
        """Stop skipping every step, so that a later run is not affected.

        A `tf.function` that an eager train step calls keeps the transform in its trace, and runs
        it in later training runs without a guard.
        """
        if self._transform is not None:
            self._transform.resume()

    def _report(self, events: list[GuardEvent]) -> None:
        warnings = [] if self._capsules is None else self._capsules.warnings
        is_last = self._policy == "rollback" and self.rollbacks >= self._max_rollbacks
        follows = _WHAT_FOLLOWS.get("stop" if is_last else self._policy, "The step was skipped.")
        texts = [f"{event} {follows} {event.how_to_replay}".rstrip() for event in events]
        for text in [*texts, *warnings] if self._verbose else []:
            print_msg(f"NonFiniteGuard: {text}")
        warnings.clear()

    def _write_capsule(self, event: GuardEvent, kept: FailureCapture | None) -> Path | None:
        """Write the capsule of an event and return its path; None if none was written."""
        capsules, model, transform = self._capsules, self._guarded_model, self._transform
        if capsules is None or model is None or transform is None or not transform.options.keeps:
            return None
        if kept is None:
            capsules.warn(
                'Under XLA, policy="warn" writes no capsule. Use policy="skip" to get one.'
                if self._policy == "warn"
                else "Only the first of several bad steps in one execution has a capsule."
            )
            return None
        state = state_of(model) if kept.state is None else kept.state
        compiled = bool(model.jit_compile) and not model.run_eagerly
        facts = {**event.facts, "policy": self._policy, "compiled": compiled}
        return capsules.write(Contents(facts, model, state, kept.batches))


# By policy; "The step was skipped." for the others.
_WHAT_FOLLOWS = {
    "rollback": "The step was skipped. Weights and optimizer return to the last snapshot.",
    "warn": "The step was applied anyway.",
}
