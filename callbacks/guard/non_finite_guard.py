"""The callback that keeps NaN and Inf out of the weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import keras

from gradkeeper.callbacks.blindness import why_nothing_was_seen
from gradkeeper.callbacks.capsule.parts import own_parts_of
from gradkeeper.callbacks.capsule.shelf import Shelf
from gradkeeper.callbacks.capsule.state import state_of
from gradkeeper.callbacks.capsule.writer import Contents
from gradkeeper.callbacks.checks import check_least
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.guard.error import NonFiniteGradientError
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.gate import Gate
from gradkeeper.callbacks.guard.keeper import Kept
from gradkeeper.callbacks.guard.loop import GuardedStep, StepModel
from gradkeeper.callbacks.guard.replica_gate import GateOptions
from gradkeeper.callbacks.guard.snapshot import Snapshot
from gradkeeper.callbacks.guard.trigger import NormAbove, Trigger
from gradkeeper.callbacks.neighbours import backups_of_calling_fit
from gradkeeper.callbacks.step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.tap.hooks import Hooks
from gradkeeper.callbacks.tap.keras_private import print_msg
from gradkeeper.callbacks.workers import Worker, strategy_of

Policy: TypeAlias = Literal["stop", "skip", "rollback", "raise", "warn"]


class NonFiniteGuard(StepCallback[Gate]):
    """Refuse train steps with a value that is not finite: a refused step leaves no trace.

        model.fit(..., callbacks=[NonFiniteGuard()])

    The checks are part of the compiled train step. Checked before the update: every gradient,
    the loss, the learning rate, and what the forward pass assigns to moving averages and other
    variables of layers. Checked after the update, where finite gradients can give a non-finite
    one (see `check_updates`): every trained variable and the optimizer's variables.

    A refused step changes nothing: neither weights, optimizer and its count of steps, nor
    moving averages, states of layers (`LSTM(stateful=True)`), metrics and random seeds;
    training goes on as if the batch had not come. Under a `tf.distribute` strategy, one bad
    replica is enough, and all replicas agree. As long as nothing is refused, training is
    bit-identical to training without the guard.

    A `LossScaleOptimizer`'s gradients overflow now and then, and it skips such steps. The guard
    leaves that to it, unless the loss is not finite either or the scale has fallen below 1.

    What is left of a bad step is a capsule, a folder with its batch, the model's state before
    it and what was measured: `gradkeeper replay FOLDER` runs the step again, and says where the
    first number arose that is not finite. Of the steps between two looks of the guard (an
    execution) the first is kept. Under XLA, where a step that is taken overwrites what was
    before, "warn" leaves none.

    Epoch logs, for every callback that stands behind the guard in the list (and History):
        skipped_steps: the epoch's refused steps. The loss and the metrics are means over the
            steps that were taken; NaN if all were refused.

    Args:
        policy: what follows on a refused step.
            "stop": training stops; weights and backups of BackupAndRestore are kept.
            "skip": training goes on, and stops after `max_consecutive` refused in a row.
            "rollback": weights and optimizer go back to the last snapshot, the learning rate is
                multiplied by `lr_factor`, and training goes on behind the batch that was
                refused; it stops after `max_rollbacks`.
            "raise": `NonFiniteGradientError`.
            "warn": nothing; the step is taken, and told.
        trigger: refuses steps with a finite but too large gradient as well: `NormAbove(bound)`,
            a number as short for that, or `Unusual(z, window)`.
        check_loss: whether a loss that is not finite is refused even if all gradients are
            finite. The loss is the return value of `compute_loss`, or else the loss in the logs
            that a custom `train_step` returns ("loss" or "*_loss").
        check_updates: whether variables and optimizer are checked after each update. None to
            check where finite gradients can give a non-finite update: float16 variables, an
            optimizer whose epsilon is 0 or underflows, `RMSprop(centered=True)`, optimizers and
            constraints that are not Keras's own.
        max_consecutive: see "skip".
        snapshot_every: train steps between two snapshots in memory, see "rollback".
        lr_factor: see "rollback".
        max_rollbacks: see "rollback".
        capsule_dir: folder for the capsules; None to write none. With several workers, those
            beside the chief write theirs, with their own part of the batch, to folders of
            their own in it, `worker-1` and so on.
        capsule_data: whether they hold the batch. Without it, a step cannot be replayed unless
            the batch is given.
        max_capsules: how many are written in all.
        max_bytes: bytes that the arrays of one may take; what does not fit is left out, and
            the capsule says so.
        verbose: 1 to print what was refused, 0 to keep quiet.

    Attributes:
        events: what was refused, a `GuardEvent` each.
        skipped: how many steps were.
        rollbacks: how often training went back to a snapshot.

    Raises:
        ValueError: on a bad argument.
        TypeError: if it is attached to something that is no Keras 3 model.
    """

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
        super().__init__(Gate)
        if policy not in get_args(Policy):
            known = ", ".join(get_args(Policy))
            raise ValueError(f"policy is one of {known}. Received: policy={policy!r}")
        check_least("max_consecutive", max_consecutive, 1)
        check_least("snapshot_every", snapshot_every, 1)
        check_least("max_rollbacks", max_rollbacks, 1)
        if not 0 < lr_factor <= 1:
            raise ValueError(f"lr_factor lies in (0, 1]. Received: lr_factor={lr_factor}")
        self.events: list[GuardEvent] = []
        self.skipped = self.rollbacks = 0
        self._policy = policy
        self._options = GateOptions(
            refuses=policy != "warn",
            halts_after=max_consecutive if policy == "skip" else 1,
            checks_loss=check_loss,
            checks_updates=check_updates,
            trigger=NormAbove(float(trigger)) if isinstance(trigger, (int, float)) else trigger,
            keeps=capsule_dir is not None,
            keeps_batch=capsule_data,
        )
        self._shelf = (
            None
            if capsule_dir is None
            else Shelf(capsule_dir, max_capsules=max_capsules, max_bytes=max_bytes)
        )
        self._snapshot_every, self._lr_factor = snapshot_every, lr_factor
        self._max_rollbacks, self._verbose = max_rollbacks, verbose
        self._next_step: int | None = None
        self._offset = self._skipped_before = self._taken_before = 0
        self._snapshot: Snapshot | None = None
        self._pending: list[GuardEvent] = []
        self._has_halted = False
        self._backups: list[keras.callbacks.BackupAndRestore] = []
        self._loop: tuple[Gate, StepModel] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._policy == "rollback" and self._lr_factor != 1:
            rate = getattr(self.model.optimizer, "learning_rate", None)
            if not isinstance(rate, keras.Variable):
                raise ValueError(
                    "policy='rollback' lowers the learning rate, which a LearningRateSchedule "
                    "(or the want of one optimizer of the model's) does not allow: set "
                    f"lr_factor=1. Received: learning_rate={rate}, lr_factor={self._lr_factor}"
                )
        super().on_train_begin(logs)
        if self._shelf is not None:
            self._shelf.is_of(Worker.of(strategy_of(self.model)))
        self._backups = backups_of_calling_fit()
        self._snapshot = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._skipped_before, self._taken_before = self.skipped, steps_taken(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._awaiting()
        if model is None:
            return
        if self._must_look():
            self._look()
        self._complain_if_blind("refuses nothing")
        if self._policy == "rollback":
            self._keep_snapshot(model)
        driver = Driver.calling("on_train_batch_begin", self._attachment.driver)
        if self._attachment.arm(self._options_for, driver):
            probe = self._attachment.probe
            probe.resume()  # after a training that was stopped
            if self._next_step is None:
                self._next_step = steps_taken(model)
            self._offset = self._next_step - probe.glance().steps

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._look()
        self._complain_if_blind("refuses nothing")
        if logs is None:
            return
        skipped = logs["skipped_steps"] = self.skipped - self._skipped_before
        has_optimizer = getattr(self.model, "optimizer", None) is not None
        if skipped and has_optimizer and steps_taken(self.model) == self._taken_before:
            # Keras's mean over no step is 0.
            means = self.model.get_metrics_result()
            logs.update(dict.fromkeys(set(means) & set(logs), float("nan")))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        try:
            self._look()
        finally:
            self._end_halt()
        self._attachment.end()
        self._snapshot, self._backups = None, []

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
        refused step leaves `variables` and optimizers as they were, and a capsule holds its
        arguments: `replay(capsule, guarded.model)`. With the policies "stop" and "raise" a
        refused step raises `NonFiniteGradientError`, with "skip" the last of `max_consecutive`
        in a row does.

        Without `step`, each call of `optimizer.apply` is a step: gradients and learning rate
        are checked before the update, no capsule is written, and events are read at the end of
        the block and by `flush`.

        Args:
            optimizer: a Keras optimizer, or a list of optimizers.
            variables: the variables that are trained; those of the optimizers by default.
            step: the function that computes gradients and calls the optimizers.

        Raises:
            RuntimeError: if the guard is attached to a fit, or guards a loop, that is running.
            ValueError: if the policy is "rollback", which needs a model.
        """
        self._refuse_if_running(None, "watch()")
        if self._policy == "rollback":
            raise ValueError(
                "policy='rollback' needs a model that is trained by fit. Received: watch()"
            )
        optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
        model = StepModel(step, optimizers, variables)
        keeps = self._options.keeps and step is not None
        gate = Gate(dataclasses.replace(self._options, keeps=keeps), model)
        gate.claim(self)
        self._loop, self._next_step = (gate, model), self._next_step or 0
        self._offset = self._next_step
        try:
            if step is not None:
                yield GuardedStep(model, gate, self._look)
            else:
                with Hooks([gate], optimizers).in_place():
                    yield None
                self._look()
            if not gate.has_seen_gradients:
                print_msg(why_nothing_was_seen("NonFiniteGuard", "refuses nothing", optimizers, ""))
        finally:
            self._loop = None

    def _refuse_if_running(self, driver: Driver | None, received: str) -> None:
        if self._loop is not None:
            raise RuntimeError(
                "This NonFiniteGuard guards a loop that is still running. Use a separate guard for "
                f"each training. Received: {received}"
            )
        super()._refuse_if_running(driver, received)

    @property
    def _gate(self) -> Gate | None:
        """The gate whose events this guard reads."""
        if self._loop is not None:
            return self._loop[0]
        is_mine = self._attachment.is_armed and self._attachment.probe.is_read_by(self)
        return self._attachment.probe if is_mine else None

    @property
    def _guarded_model(self) -> keras.Model | None:
        """The model that is trained, or the step of a custom loop as a model."""
        return self._attachment.model if self._loop is None else self._loop[1]

    def flush(self) -> None:
        """Read what was refused since the last look."""
        gate = self._gate
        if gate is None:
            return
        glance = gate.glance()
        self._next_step = self._offset + glance.steps
        self._has_halted |= glance.has_halted
        if not glance.has_noted:
            gate.let_go(glance)
            return
        events, count, kept = gate.drain()
        self.skipped += count if self._options.refuses else 0
        for event in events:
            mine = kept if kept is not None and kept.step == event.step else None
            event = dataclasses.replace(event, step=event.step + self._offset)
            capsule = self._put_away(event, mine)
            parts = () if capsule is None else own_parts_of(self._guarded_model)
            self.events.append(dataclasses.replace(event, capsule=capsule, own_parts=parts))
            self._pending.append(self.events[-1])
            kept = None if mine is not None else kept

    def _must_look(self) -> bool:
        """Whether there may be something to do before the next step."""
        attachment = self._attachment
        if self._pending or self._has_halted or self._policy == "rollback":
            return True
        return not attachment.is_armed or attachment.probe.may_have_noted

    def _options_for(self, model: keras.Model) -> GateOptions:
        self.flush()  # the last time that this gate is asked, if another takes over
        outruns = self._policy == "skip" and model.steps_per_execution > 1
        return dataclasses.replace(self._options, outruns_host=outruns)

    def _look(self) -> None:
        """Reads what was refused since the last look, and does what follows on it."""
        self.flush()
        events, self._pending = self._pending, []
        halted, self._has_halted = self._has_halted, False
        model = self._guarded_model
        if not events or model is None:
            return
        self._tell(events)
        if self._policy == "raise" or (self._loop is not None and halted):
            self._end_halt()
            raise NonFiniteGradientError(events[0])
        if not halted:
            return
        if self._snapshot is not None and self.rollbacks < self._max_rollbacks:
            self.rollbacks += 1
            self._snapshot.restore(self._lr_factor)
            self._attachment.probe.resume()
            return
        if self._verbose:
            print_msg("NonFiniteGuard: training stops.")
        model.stop_training = True
        self._keep_backups()

    def _end_halt(self) -> None:
        """Leaves no halt behind: a function that an eager train step calls outlives the training.

        TensorFlow runs it again as it was traced, with the gate in it, in trainings without one.
        """
        if self._gate is not None:
            self._gate.resume()

    def _tell(self, events: list[GuardEvent]) -> None:
        complaints = self._shelf.complaints if self._shelf is not None else []
        follows = _WHAT_FOLLOWS[self._policy]
        texts = [f"{event} {follows} {event.how_to_replay}".rstrip() for event in events]
        for text in [*texts, *complaints] if self._verbose else []:
            print_msg(f"NonFiniteGuard: {text}")
        complaints.clear()

    def _put_away(self, event: GuardEvent, kept: Kept | None) -> Path | None:
        """Writes the capsule of an event; None if there is none."""
        shelf, model = self._shelf, self._guarded_model
        if shelf is None or model is None or self._gate is None or not self._gate.options.keeps:
            return None
        if kept is None:
            shelf.complain(
                'Under XLA, policy="warn" leaves no capsule.'
                if self._policy == "warn"
                else "Of several bad steps between two looks, the first one has the capsule."
            )
            return None
        state = state_of(model) if kept.state is None else kept.state
        compiled = bool(model.jit_compile) and not model.run_eagerly
        facts = {**event.facts, "policy": self._policy, "compiled": compiled}
        return shelf.put(Contents(facts, model, state, kept.batches))

    def _keep_snapshot(self, model: keras.Model) -> None:
        step = self._next_step or 0
        if self._snapshot is None or step >= self._snapshot.step + self._snapshot_every:
            self._snapshot = Snapshot(model, step)

    def _keep_backups(self) -> None:
        """Has BackupAndRestore keep what it would delete at the end of the training."""
        for backup in self._backups:
            backup.delete_checkpoint = False


_WHAT_FOLLOWS: dict[str, str] = {
    "stop": "The step was not taken.",
    "skip": "The step was not taken.",
    "rollback": "The step was not taken, and training goes back to the last snapshot.",
    "raise": "The step was not taken.",
    "warn": "The step was taken all the same.",
}
