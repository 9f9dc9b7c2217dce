"""Whether a training that has begun still runs."""

import sys
import weakref
from types import FrameType

import keras

from gradkeeper.callbacks.driver import Driver


class Underway:
    """The training whose `on_train_begin` is calling.

    Args:
        driver: who calls it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._callbacks = _calling_list()

    def is_running(self) -> bool:
        """Whether it neither ended nor raised.

        Python gives a frame's number again, and likely to the next fit after one that raised;
        the list of callbacks is another's by then.
        """
        there = self._callbacks is None or self._callbacks() is not None
        return there and self._driver.is_running()


def _calling_list() -> "weakref.ref[keras.callbacks.CallbackList] | None":
    """The callbacks of the training; None in a loop that calls them one by one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _BEGIN:
        frame = frame.f_back
    return None if frame is None else weakref.ref(frame.f_locals["self"])


_BEGIN = keras.callbacks.CallbackList.on_train_begin.__code__
