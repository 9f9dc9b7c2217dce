"""Callback that clips gradients by an adaptive limit."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gradkeeper.callbacks._fit_frame import sibling_backups
from gradkeeper.callbacks._step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.clipping.methods import METHODS
from gradkeeper.callbacks.clipping.transform import ClipTransform
from gradkeeper.callbacks.instrument.optimizers import clipping_of, optimizers_of


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

    def __init__(
        self,
        method: Literal["autoclip", "percentile", "zclip", "agc"] = "autoclip",
        *,
        allow_optimizer_clipping: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(ClipTransform)
        if method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}. Received: method={method!r}"
            )
        self._method = METHODS[method](**options)
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
        super().on_train_begin(logs)
        self._backups = [StateBackup(each.backup_dir) for each in sibling_backups()]
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
        self._end_run()
        self._backups = []

    def _restore(self) -> None:
        """Load the state of the step that BackupAndRestore has restored."""
        self._is_first = False
        step = steps_taken(self.model)
        for backup in self._backups:
            state = backup.at(step)
            if state is not None and self._observer is not None:
                self._observer.load(state)

    def _back_up(self) -> None:
        if self._backups and self._observer is not None:
            step, state = steps_taken(self.model), self._observer.state
            for backup in self._backups:
                backup.write(step, state)


_NAME = "adaptive_clipping.npz"

State = Mapping[str, np.ndarray]


class StateBackup:
    """File in a backup directory with the last two states, keyed by the optimizer's step count.

    Weights and state are written one after the other. If the process is killed in between, the
    older of the two states matches the weights.

    Args:
        folder: the `backup_dir` of BackupAndRestore.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / _NAME
        self._weights = Path(folder) / "latest.weights.h5"
        self._states = self._read()
        self._seen = self._written_at()

    def at(self, step: int) -> State | None:
        """Return the state after `step` steps; None if there is none."""
        return self._states.get(step)

    @property
    def has_new_weights(self) -> bool:
        """Return True if the weights of the backup are newer than the last state."""
        return self._written_at() != self._seen

    def write(self, step: int, state: State) -> None:
        """Add a state in an atomic write, and keep only the previous one."""
        self._seen = self._written_at()
        kept = sorted(self._states.items())[-1:]
        self._states = {**dict(kept), step: state}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            f"{at}:{k}": v for at, each in self._states.items() for k, v in each.items()
        }
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def _read(self) -> dict[int, State]:
        states: dict[int, dict[str, np.ndarray]] = {}
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    step, name = key.split(":", 1)
                    states.setdefault(int(step), {})[name] = arrays[key]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The saved state of AdaptiveClipping cannot be read. Delete the file to start "
                f"without a saved state. Received: {self._path}"
            ) from error
        return dict(states)

    def _written_at(self) -> int:
        try:
            return self._weights.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
