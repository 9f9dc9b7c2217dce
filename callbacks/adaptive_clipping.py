"""Callback that clips gradients by an adaptive limit."""

from typing import Any, Literal

import keras

from gradkeeper._arguments import choice
from gradkeeper.callbacks._backend import ClipTransform
from gradkeeper.callbacks._fit_frame import sibling_callbacks
from gradkeeper.callbacks._step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.clipping.backup import StateBackup
from gradkeeper.callbacks.clipping.methods import METHODS
from gradkeeper.callbacks.instrument.optimizers import accumulates, clipping_of, optimizers_of


class AdaptiveClipping(StepCallback[ClipTransform]):
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
        allow_optimizer_clipping: whether to accept an optimizer with its own clipping. The
            optimizer's clipping is then applied after this callback's.
        **options: options of the method, as listed there.

    Raises:
        ValueError: if an argument is invalid, or when training starts with an optimizer that
            has its own clipping, unless `allow_optimizer_clipping`.
        TypeError: if the method does not have an option, or if the callback is attached to an
            object that is not a Keras 3 model.
    """

    _backends = ("tensorflow", "jax", "torch")

    def __init__(
        self,
        method: Literal["autoclip", "percentile", "zclip", "agc"] = "autoclip",
        *,
        allow_optimizer_clipping: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(ClipTransform)
        self._method = METHODS[choice("method", method, METHODS)](**options)
        self._beside_own_clipping = allow_optimizer_clipping
        self._backups: list[StateBackup] = []
        self._is_first = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for optimizer in optimizers_of(self.model):
            own = clipping_of(optimizer)
            if own is not None and not self._beside_own_clipping:
                raise ValueError(
                    "The optimizer has its own clipping. Remove it, or pass "
                    f"allow_optimizer_clipping=True. Received: {optimizer.name} with {own}"
                )
            if keras.backend.backend() == "jax" and _accumulates_scaled(optimizer):
                raise ValueError(
                    "On the JAX backend, AdaptiveClipping cannot clip the gradients that a "
                    "LossScaleOptimizer accumulates. Remove one of the two. "
                    f"Received: {optimizer.name}"
                )
        super().on_train_begin(logs)
        backups = sibling_callbacks(keras.callbacks.BackupAndRestore)
        self._backups = [StateBackup(each.backup_dir) for each in backups]
        self._is_first = True

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._model_in_training() is None:
            return
        self._warn_if_no_gradients("clips nothing")
        self._observe_next_step(lambda _: self._method)
        if self._is_first:
            self._restore()
        elif any(backup.has_new_weights for backup in self._backups):
            self._back_up()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._warn_if_no_gradients("clips nothing")
        self._back_up()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._backups = []

    def _restore(self) -> None:
        """Load the state of the step that BackupAndRestore has restored."""
        self._is_first = False
        step = steps_taken(self.model)
        for backup in self._backups:
            if self._observer is not None and step in backup.states:
                self._observer.load(backup.states[step])

    def _back_up(self) -> None:
        if self._backups and self._observer is not None:
            step, state = steps_taken(self.model), self._observer.state
            for backup in self._backups:
                backup.write(step, state)


def _accumulates_scaled(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and accumulates(optimizer)
