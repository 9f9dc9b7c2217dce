"""End of training between two steps on Ctrl-C."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import keras

_MESSAGE = b"\nStopping after this step. Press Ctrl-C again to stop at once.\n"
_STDERR = 2


class InterruptBetweenSteps(keras.callbacks.Callback):
    """Raise KeyboardInterrupt of a Ctrl-C at the end of the step in progress.

    Python raises KeyboardInterrupt at any bytecode: in a checkpoint that is half written, in a
    step of JAX that owns the weights, or in library code that catches every exception, where it is
    lost. A second Ctrl-C is raised at once.

    Use it as a context manager around `fit`, and attach it after all other callbacks. It changes
    nothing in other threads than the main one, or if SIGINT has another handler than Python's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requested = self._installed = False

    def __enter__(self) -> None:
        self._installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._installed:
            signal.signal(signal.SIGINT, self._request)

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if not any(error):
            self._raise_if_requested()

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            signal.default_int_handler(number, frame)
        self._requested = True
        os.write(_STDERR, _MESSAGE)  # `print` is not reentrant, and a handler can interrupt it

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise_if_requested()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._raise_if_requested()

    def _raise_if_requested(self) -> None:
        if self._requested:
            raise KeyboardInterrupt
