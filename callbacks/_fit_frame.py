"""Identification of the frame whose loop calls the callbacks."""

import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType

import keras


@dataclass(frozen=True)
class FitFrame:
    """Frame of `model.fit`, or of a custom loop that calls the callbacks.

    The frame is stored by id and code object, not by reference, so that its locals are not kept
    alive. Keras does not notify callbacks when `fit` raises. The stacks of all threads show
    whether a run is still active.
    """

    frame: int
    code: CodeType

    @classmethod
    def calling(cls, hook: str, known: "FitFrame | None" = None) -> "FitFrame":
        """Return the frame that calls the hook in which this is called; `known` if it is the same."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != hook:
            frame = frame.f_back
        while frame is not None and frame.f_code.co_name == hook and frame.f_back:
            frame = frame.f_back
        assert frame is not None
        if known is not None and known._is(frame):
            return known
        return cls(id(frame), frame.f_code)

    def is_calling(self, caller: FrameType | None) -> bool:
        """Return True if a call comes directly from this frame, not from a callback.

        A loop may call its callbacks from a function that has since returned. In that case,
        every call that does not come from a callback counts.

        Args:
            caller: the frame that makes the call.
        """
        number, code = self.frame, self.code
        while caller is not None:
            if id(caller) == number and caller.f_code is code:
                return True
            if id(caller.f_code) in _HOOKS:
                return False
            caller = caller.f_back
        return not self.is_running()

    def is_running_beside(self, other: "FitFrame | None") -> bool:
        """Return True if this frame is not `other` and is on the stack of a thread."""
        return self != other and self.is_running()

    def is_running(self) -> bool:
        """Return True if this frame is on the stack of a thread."""
        return any(self._is_on(top) for top in sys._current_frames().values())

    def _is_on(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if self._is(frame):
                return True
            frame = frame.f_back
        return False

    def _is(self, frame: FrameType) -> bool:
        return id(frame) == self.frame and frame.f_code is self.code


# Code of a callback runs below one of these hooks. The key is the `id`, because hashing a code
# object is slow: the hash covers all contents.
_HOOKS = {
    id(method.__code__): method.__code__
    for name, method in vars(keras.callbacks.CallbackList).items()
    if name.startswith("on_")
}


class RunningFit:
    """Active run, created inside `on_train_begin`.

    Args:
        frame: the frame that calls `on_train_begin`.
    """

    def __init__(self, frame: FitFrame) -> None:
        self._frame = frame
        callbacks = _calling_list()
        self._callbacks = None if callbacks is None else weakref.ref(callbacks)

    def is_running(self) -> bool:
        """Return True if the run has neither ended nor raised.

        Python may reuse the id of a frame for the next `fit` after one that raised. By then, the
        callback list of the failed run has been deleted.
        """
        there = self._callbacks is None or self._callbacks() is not None
        return there and self._frame.is_running()


def _calling_list() -> keras.callbacks.CallbackList | None:
    """Return the CallbackList that calls `on_train_begin`; None in a loop without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _BEGIN:
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


_BEGIN = keras.callbacks.CallbackList.on_train_begin.__code__


def sibling_backups() -> list[keras.callbacks.BackupAndRestore]:
    """Return the BackupAndRestore callbacks of the run that is calling `on_train_begin`.

    Keras does not give a callback access to the other callbacks. Their list is on the stack.
    """
    callbacks = _calling_list()
    return [] if callbacks is None else list(_backups(callbacks.callbacks))


def _backups(callbacks: list[keras.callbacks.Callback]) -> Iterator:
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _backups(callback.callbacks)
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            yield callback
