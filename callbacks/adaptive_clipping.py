"""Callback that clips gradients by an adaptive limit."""

import os
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from gradkeeper._arguments import choice
from gradkeeper.callbacks._clipping_methods import AGC, METHODS, Arrays, Limit, LimitMethod, Method
from gradkeeper.callbacks._fit_frame import sibling_callbacks
from gradkeeper.callbacks._step_callback import StepCallback, steps_taken
from gradkeeper.callbacks.instrument.losses import with_values
from gradkeeper.callbacks.instrument.observer import GradientTransform
from gradkeeper.callbacks.instrument.optimizers import clipping_of, optimizers_of
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    Variables,
    sum_over_replicas,
)
from gradkeeper.callbacks.statistics.gradients import l2_norms


class AdaptiveClipping(StepCallback["ClipTransform"]):
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


class ClipTransform(GradientTransform):
    """Gradient transform that clips by a limit computed from gradient norms.

    Under several replicas the norms are those of the summed gradients, so N replicas clip like
    one device with the global batch. The arguments are those of `StepCallback`'s `make`.
    """

    clips = True

    def __init__(
        self, method: Method, model: keras.Model, *, optimizers: Any, compiled: bool
    ) -> None:
        super().__init__(optimizers)
        self._method, self._compiled = method, compiled
        # For each replica, the limits in the order of the clipping calls in a step.
        self._limits: dict[int, dict[tuple[int, int], Limit]] = defaultdict(dict)
        self._awaited: Arrays = {}

    @property
    def state(self) -> Arrays:
        """Return the state of all limits, which is the same on every replica."""
        return {
            f"{number}/{name}": variable.numpy()
            for number, limit in enumerate(self._limits[0].values())
            for name, variable in limit.variables.items()
        }

    def load(self, state: Arrays) -> None:
        """Load the state. Limits that do not exist yet load it when the first step creates them.

        Raises:
            ValueError: if the state belongs to another method or other options.
        """
        self._awaited = state
        for limits in self._limits.values():
            for number, limit in enumerate(limits.values()):
                limit.load(_part(state, number))

    def reset(self) -> None:
        """Reset the state of all limits."""
        self._awaited = {}
        for limits in self._limits.values():
            for limit in limits.values():
                limit.reset()

    def transform_before_clip(
        self, call: OptimizerCall, gradients: Gradients, variables: Variables
    ) -> Gradients:
        self.has_seen_gradients = True
        whole = gradients if call.replica.count == 1 else sum_over_replicas(gradients)
        if isinstance(self._method, AGC):
            pairs = zip(whole, variables, strict=True)
            factors = [self._method.factor(gradient, variable) for gradient, variable in pairs]
        else:
            norm = tf.norm(l2_norms(whole, tf.float32))
            factors = [self._limit(self._method, call).factor(norm)] * len(gradients)
        return [
            _times(gradient, factor) for gradient, factor in zip(gradients, factors, strict=True)
        ]

    def _limit(self, method: LimitMethod, call: OptimizerCall) -> Limit:
        """Return the limit of this replica and of this clipping call in the step."""
        limits = self._limits[call.replica.index]
        key = id(call.optimizer), call.clippings
        if key not in limits:
            limit = Limit(method, call.replica.home(compiled=self._compiled))
            if part := _part(self._awaited, len(limits)):
                with ThreadPoolExecutor(1) as thread:  # outside the graph that is being traced
                    thread.submit(limit.load, part).result()
            limits[key] = limit
        return limits[key]


def _part(state: Arrays, number: int) -> Arrays:
    """Return the state of the limit with this index."""
    start = f"{number}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def _times(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices) and factor.shape.rank:
        factor = tf.squeeze(factor, 0)  # IndexedSlices hold only some of the rows
    return with_values(gradient, lambda values: values * tf.cast(factor, values.dtype))


class StateBackup:
    """File in a backup directory with the last two `states` by the optimizer's step count.

    Weights and state are written one after the other. If the process is killed in between, the
    older of the two states matches the weights.

    Args:
        folder: the `backup_dir` of BackupAndRestore.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / "adaptive_clipping.npz"
        self._weights = Path(folder) / "latest.weights.h5"
        self.states = self._read()
        self._seen = self._written_at()

    @property
    def has_new_weights(self) -> bool:
        """Return True if the weights of the backup are newer than the last state."""
        return self._written_at() != self._seen

    def write(self, step: int, state: Arrays) -> None:
        """Add a state in an atomic write, and keep only the previous one."""
        self._seen = self._written_at()
        self.states = dict([*sorted(self.states.items())[-1:], (step, state)])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            f"{at}:{k}": v for at, each in self.states.items() for k, v in each.items()
        }
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def _read(self) -> dict[int, Arrays]:
        states: dict[int, Arrays] = {}
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    step, name = key.split(":", 1)
                    states.setdefault(int(step), {})[name] = arrays[key]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                "The saved state of AdaptiveClipping cannot be read. Delete the file to start "
                f"without a saved state. Received: {self._path}"
            ) from error
        return states

    def _written_at(self) -> int:
        try:
            return self._weights.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
