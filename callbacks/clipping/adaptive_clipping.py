"""The callback that clips by a limit which follows the training."""

from typing import Any, Literal

from gradkeeper.callbacks.clipping.backup import StateBackup
from gradkeeper.callbacks.clipping.clip_stage import ClipStage
from gradkeeper.callbacks.clipping.methods import METHODS
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.neighbours import backups_of_calling_fit
from gradkeeper.callbacks.step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.tap.optimizers import clipping_of, optimizers_of


class AdaptiveClipping(StepCallback[ClipStage]):
    """Clips gradients inside the compiled step, by a limit that follows their own norms.

        model.fit(..., callbacks=[AdaptiveClipping("zclip")])

    Acts where the optimizer's own clipping would, and replaces no optimizer: on gradients that
    are accumulated and divided by the loss scale, after a `NonFiniteGuard`. Under several
    replicas the limit is one on the gradient of the global batch. A gradient that is not
    finite is left as it is. What it has learnt lasts over several fits, and is kept beside the
    weights where a `keras.callbacks.BackupAndRestore` is attached as well.

    Args:
        method: how the limit is found.
            "autoclip": percentile of all norms so far, the step's own among them (Seetharaman et
                al. 2020, arXiv:2007.14469); `percentile=10`, `window=1000`.
            "percentile": percentile of the norms before; `percentile=95`, `window=1000`,
                `warmup=25`.
            "zclip": norms that stand out by their z-score are brought down (Kumar et al. 2025,
                arXiv:2504.02507); `z_threshold=2.5`, `alpha=0.97`, `warmup=25`.
            "agc": each unit's gradient against its own weights (Brock et al. 2021,
                arXiv:2102.06171); `clipping=0.01`, `eps=1e-3`.
        beside_own_clipping: whether an optimizer that clips by itself is accepted; its clipping
            then acts on what this one leaves.
        **options: of the method, see there.

    Raises:
        ValueError: on a bad argument; at the beginning of a training whose optimizer clips by
            itself, unless `beside_own_clipping`.
        TypeError: on an option that the method does not have, and if it is attached to something
            that is no Keras 3 model.
    """

    def __init__(
        self,
        method: Literal["autoclip", "percentile", "zclip", "agc"] = "autoclip",
        *,
        beside_own_clipping: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(ClipStage)
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}. Received: method={method!r}")
        self._method = METHODS[method](**options)
        self._beside_own_clipping = beside_own_clipping
        self._backups: list[StateBackup] = []
        self._is_first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for optimizer in optimizers_of(self.model):
            own = clipping_of(optimizer)
            if own is not None and not self._beside_own_clipping:
                raise ValueError(
                    "The optimizer clips by itself: take that away, or say "
                    f"beside_own_clipping=True. Received: {optimizer.name} with {own}"
                )
        super().on_train_begin(logs)
        self._backups = [StateBackup(each.backup_dir) for each in backups_of_calling_fit()]
        self._is_first = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._awaiting() is None:
            return
        self._complain_if_blind("clips nothing")
        self._attachment.arm(
            lambda _: self._method, Driver.calling("on_train_batch_begin", self._attachment.driver)
        )
        if self._is_first:
            self._restore()
        elif any(backup.has_new_weights for backup in self._backups):
            self._back_up()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._complain_if_blind("clips nothing")
        self._back_up()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._attachment.end()
        self._backups = []

    def _restore(self) -> None:
        """Goes on from what was learnt by the step that BackupAndRestore has gone back to."""
        self._is_first = False
        step = steps_taken(self.model)
        for backup in self._backups:
            state = backup.at(step)
            if state is not None:
                self._attachment.probe.load(state)

    def _back_up(self) -> None:
        if self._backups and self._attachment.is_armed:
            step, state = steps_taken(self.model), self._attachment.probe.state
            for backup in self._backups:
                backup.write(step, state)
