"""The callback that keeps NaN and Inf out of the weights."""

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

import keras

from gradkeeper.callbacks.attachment import Attachment
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.guard.error import NonFiniteGradientError
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.gate import Gate, GateOptions
from gradkeeper.callbacks.guard.trigger import NormAbove, Trigger
from gradkeeper.callbacks.neighbours import backups_of_calling_fit
from gradkeeper.callbacks.tap.keras_private import print_msg

Policy: TypeAlias = Literal["stop", "skip", "rollback", "raise", "warn"]


class NonFiniteGuard(keras.callbacks.Callback):
    """Refuses a train step whose gradients are not finite: it leaves no trace.

        model.fit(..., callbacks=[NonFiniteGuard()])

    The check is part of the compiled train step and comes before the optimizer. A refused
    step changes nothing: neither weights, optimizer and its count of steps, nor moving
    averages, metrics and random seeds; training goes on as if the batch had not come. Under
    a `tf.distribute` strategy, one bad replica is enough, and all of them agree. As long as
    nothing is refused, training is bit-identical to training without the guard.

    A `LossScaleOptimizer`'s gradients overflow now and then, and it skips such steps by
    itself; the guard leaves that to it, unless the loss is not finite either or the scale has
    come down below 1.

    Epoch logs, for every callback that stands behind the guard in the list (and History):
        skipped_steps: the epoch's refused steps.

    Args:
        policy: what follows on a refused step.
            "stop": training stops; weights and backups of BackupAndRestore are kept.
            "skip": training goes on, and stops after `max_consecutive` refused in a row.
            "rollback": weights and optimizer go back to the last snapshot, the learning rate is
                multiplied by `lr_factor`, and training goes on behind the batch that was
                refused; it stops after `max_rollbacks`.
            "raise": `NonFiniteGradientError`.
            "warn": none; the step is taken, and told.
        trigger: refuses steps with a finite but too large gradient as well: `NormAbove(bound)`,
            a number as short for that, or `Unusual(z, window)`.
        check_loss: whether a loss that is not finite is refused even if all gradients are.
        max_consecutive: see "skip".
        snapshot_every: train steps between two snapshots in memory, see "rollback".
        lr_factor: see "rollback".
        max_rollbacks: see "rollback".
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
        check_loss: bool = False,
        max_consecutive: int = 10,
        snapshot_every: int = 100,
        lr_factor: float = 0.5,
        max_rollbacks: int = 3,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        if policy not in get_args(Policy):
            known = ", ".join(get_args(Policy))
            raise ValueError(f"policy is one of {known}. Received: policy={policy!r}")
        counts = {
            "max_consecutive": max_consecutive,
            "snapshot_every": snapshot_every,
            "max_rollbacks": max_rollbacks,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0 < lr_factor <= 1:
            raise ValueError(f"lr_factor lies in (0, 1]. Received: lr_factor={lr_factor}")
        self.events: list[GuardEvent] = []
        self.skipped = self.rollbacks = 0
        self._policy = policy
        self._options = GateOptions(
            refuses=policy != "warn",
            halts_after=max_consecutive if policy == "skip" else 1,
            checks_loss=check_loss,
            trigger=NormAbove(float(trigger)) if isinstance(trigger, (int, float)) else trigger,
        )
        self._snapshot_every, self._lr_factor = snapshot_every, lr_factor
        self._max_rollbacks, self._verbose = max_rollbacks, verbose
        self._attachment: Attachment[Gate] = Attachment(self, Gate)
        self._next_step: int | None = None
        self._offset = self._in_epoch = 0
        self._snapshot: _Snapshot | None = None
        self._backups: list[keras.callbacks.BackupAndRestore] = []

    def set_model(self, model: keras.Model) -> None:
        self._attachment.check(model)
        super().set_model(model)

    def _implements_train_batch_hooks(self) -> bool:
        """Asked by tf_keras alone, before it hands over its model."""
        self._attachment.refuse_tf_keras()
        return False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._policy == "rollback" and self._lr_factor != 1:
            rate = getattr(self.model.optimizer, "learning_rate", None)
            if not isinstance(rate, keras.Variable):
                raise ValueError(
                    "policy='rollback' lowers the learning rate, which a LearningRateSchedule "
                    "(or the want of one optimizer of the model's) does not allow: set "
                    f"lr_factor=1. Received: learning_rate={rate}, lr_factor={self._lr_factor}"
                )
        self._attachment.begin(self.model, Driver.calling("on_train_begin"))
        self._backups = backups_of_calling_fit()
        self._snapshot = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._in_epoch = self.skipped

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._attachment.model
        if model is None:
            return
        if model.train_function is None:  # in a loop of one's own, before its first step
            model.make_train_function()
        self._look()
        if self._policy == "rollback":
            self._keep_snapshot(model)
        driver = Driver.calling("on_train_batch_begin")
        if self._attachment.arm(lambda _: self._options, driver):
            probe = self._attachment.probe
            probe.resume()  # after a training that was stopped
            if self._next_step is None:
                optimizer = model.optimizer
                self._next_step = 0 if optimizer is None else int(optimizer.iterations.numpy())
            self._offset = self._next_step - probe.steps

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._look()
        if logs is not None:
            logs["skipped_steps"] = self.skipped - self._in_epoch

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._look()
        self._attachment.end()
        self._snapshot, self._backups = None, []

    def flush(self) -> None:
        """Reads what was refused since the last look."""
        self._read()

    def _read(self) -> list[GuardEvent]:
        if not self._attachment.is_armed or not self._attachment.probe.is_read_by(self):
            return []
        gate = self._attachment.probe
        self._next_step = self._offset + gate.steps
        events, count = gate.drain()
        events = [dataclasses.replace(event, step=event.step + self._offset) for event in events]
        self.events += events
        self.skipped += count if self._options.refuses else 0
        return events

    def _look(self) -> None:
        """Reads what was refused since the last look, and does what follows on it."""
        events, model = self._read(), self._attachment.model
        if not events or model is None:
            return
        if self._verbose:
            for event in events:
                print_msg(f"NonFiniteGuard: {event} {_WHAT_FOLLOWS[self._policy]}")
        gate = self._attachment.probe
        if self._policy == "raise":
            raise NonFiniteGradientError(events[0])
        if not gate.has_halted:
            return
        if self._snapshot is not None and self.rollbacks < self._max_rollbacks:
            self.rollbacks += 1
            self._snapshot.restore(self._lr_factor)
            gate.resume()
            return
        if self._verbose:
            print_msg("NonFiniteGuard: training stops.")
        model.stop_training = True
        self._keep_backups()

    def _keep_snapshot(self, model: keras.Model) -> None:
        step = self._next_step or 0
        if self._snapshot is None or step >= self._snapshot.step + self._snapshot_every:
            self._snapshot = _Snapshot(model, step)

    def _keep_backups(self) -> None:
        """Has BackupAndRestore keep what it would delete at the end of the training."""
        for backup in self._backups:
            backup.delete_checkpoint = False


class _Snapshot:
    """Weights and optimizer of a model, in memory."""

    def __init__(self, model: keras.Model, step: int) -> None:
        self.step = step
        self._optimizer = model.optimizer
        self._variables = [*model.variables, *self._optimizer.variables]
        self._values = [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def restore(self, lr_factor: float) -> None:
        """Puts everything back, but the learning rate is what it is now times a factor."""
        rate = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        if lr_factor != 1:
            self._optimizer.learning_rate = rate * lr_factor


_WHAT_FOLLOWS: dict[str, str] = {
    "stop": "The step was not taken.",
    "skip": "The step was not taken.",
    "rollback": "The step was not taken, and training goes back to the last snapshot.",
    "raise": "The step was not taken.",
    "warn": "The step was taken all the same.",
}
