"""Callback that clips gradients by an adaptive limit."""

from typing import Any, Literal

from gradkeeper.callbacks.clipping.backup import StateBackup
from gradkeeper.callbacks.clipping.clip_stage import ClipStage
from gradkeeper.callbacks.clipping.methods import METHODS
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.neighbours import backups_of_calling_fit
from gradkeeper.callbacks.step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.tap.optimizers import clipping_of, optimizers_of


class AdaptiveClipping(StepCallback[ClipStage]):
    """Callback that clips gradients in the compiled step, by a limit computed from their norms.

        model.fit(..., callbacks=[AdaptiveClipping("zclip")])

    The callback clips where the optimizer's own clipping would: gradients are accumulated and
    divided by the loss scale, and a `NonFiniteGuard` has already checked them. The optimizer is
    not replaced. Under several replicas the limit applies to the gradient of the global batch.
    Non-finite gradients are not changed. The state of the limit persists across several fits. If
    a `keras.callbacks.BackupAndRestore` is attached, the state is saved in its directory.

    Args:
        method: the method that computes the limit.
            "autoclip": a percentile of the last norms, including the current one (Seetharaman et
                al. 2020, arXiv:2007.14469); `percentile=10`, `window=1000`.
            "percentile": a percentile of the last norms, excluding the current one;
                `percentile=95`, `window=1000`, `warmup=25`.
            "zclip": reduce norms with a high z-score (Kumar et al. 2025, arXiv:2504.02507);
                `z_threshold=2.5`, `alpha=0.97`, `warmup=25`.
            "agc": limit each unit's gradient norm relative to the norm of the unit's weights
                (Brock et al. 2021, arXiv:2102.06171); `clipping=0.01`, `eps=1e-3`.
        beside_own_clipping: whether to accept an optimizer with its own clipping. The
            optimizer's clipping is then applied after this callback's.
        **options: options of the method, as listed there.

    Raises:
        ValueError: if an argument is invalid, or when training starts with an optimizer that
            has its own clipping, unless `beside_own_clipping`.
        TypeError: if the method does not have an option, or if the callback is attached to an
            object that is not a Keras 3 model.
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
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}. Received: method={method!r}"
            )
        self._method = METHODS[method](**options)
        self._beside_own_clipping = beside_own_clipping
        self._backups: list[StateBackup] = []
        self._is_first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for optimizer in optimizers_of(self.model):
            own = clipping_of(optimizer)
            if own is not None and not self._beside_own_clipping:
                raise ValueError(
                    "The optimizer has its own clipping. Remove it, or pass "
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
        """Load the state of the step that BackupAndRestore has restored."""
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
