"""Detection of whether a run is still active."""

import sys
import weakref
from types import FrameType

import keras

from gradkeeper.callbacks.driver import Driver


class Underway:
    """Active run, created inside `on_train_begin`.

    Args:
        driver: the frame that calls `on_train_begin`.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._callbacks = _calling_list()

    def is_running(self) -> bool:
        """Return True if the run has neither ended nor raised.

        Python may reuse the id of a frame for the next `fit` after one that raised. By then, the
        callback list of the failed run has been deleted.
        """
        there = self._callbacks is None or self._callbacks() is not None
        return there and self._driver.is_running()


def _calling_list() -> "weakref.ref[keras.callbacks.CallbackList] | None":
    """Return the CallbackList of the run; None in a loop that calls callbacks directly."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _BEGIN:
        frame = frame.f_back
    return None if frame is None else weakref.ref(frame.f_locals["self"])


_BEGIN = keras.callbacks.CallbackList.on_train_begin.__code__
