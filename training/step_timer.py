"""Measurement of the time per train step."""

import time
from typing import Any

import keras


class StepTimer(keras.callbacks.Callback):
    """Measure wall time per train step, without tracing, validation and epoch-end callbacks.

    The first execution of each epoch is excluded, because it includes tracing and the filling of
    input buffers. It is included if an epoch has a single execution.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        self._steps = 0
        self._first = self._last = (0.0, -1)

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds per train step; NaN before the end of the first epoch."""
        return self._seconds / self._steps if self._steps else float("nan")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = self._last = (time.perf_counter(), -1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        begun = self._last[1] >= 0
        self._last = (time.perf_counter(), batch)
        if not begun:
            self._started, self._first = self._first, self._last

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        single = self._last == self._first
        since, before = self._started if single else self._first
        until, last = self._last
        self._seconds += until - since
        self._steps += last - before
