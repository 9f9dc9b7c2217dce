"""Identification of the frame whose loop calls the callbacks."""

import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from types import CodeType, FrameType
from typing import TypeVar

import keras

CallbackT = TypeVar("CallbackT", bound=keras.callbacks.Callback)


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
        """Return the frame that calls the hook which calls this; `known` if it is the same."""
        above = dropwhile(lambda each: each.f_code.co_name != hook, _stack(sys._getframe(1)))
        frame = next(each for each in above if each.f_code.co_name != hook)
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
        for frame in _stack(caller):
            if self._is(frame):
                return True
            if id(frame.f_code) in _HOOKS:
                return False
        return not self.is_running()

    def is_running(self) -> bool:
        """Return True if this frame is on the stack of a thread."""
        tops = sys._current_frames().values()
        return any(self._is(frame) for top in tops for frame in _stack(top))

    def _is(self, frame: FrameType) -> bool:
        return id(frame) == self.frame and frame.f_code is self.code


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


# Code of a callback runs below one of these hooks. The key is the `id`, because hashing a code
# object is slow: the hash covers all contents.
_HOOKS = {
    id(method.__code__): method.__code__
    for name, method in vars(keras.callbacks.CallbackList).items()
    if name.startswith("on_")
}


class RunningFit:
    """Active run, created inside `on_train_begin`."""

    def __init__(self) -> None:
        self._frame = FitFrame.calling("on_train_begin")
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
    begin = keras.callbacks.CallbackList.on_train_begin.__code__
    frames = (each for each in _stack(sys._getframe(1)) if each.f_code is begin)
    return next((each.f_locals["self"] for each in frames), None)


def sibling_callbacks(kind: type[CallbackT]) -> list[CallbackT]:
    """Return the callbacks of a class in the run that is calling `on_train_begin`.

    Keras does not give a callback access to the other callbacks. Their list is on the stack.
    """
    callbacks = _calling_list()
    every = [] if callbacks is None else _flat(callbacks.callbacks)
    return [each for each in every if isinstance(each, kind)]


def _flat(callbacks: list[keras.callbacks.Callback]) -> Iterator[keras.callbacks.Callback]:
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _flat(callback.callbacks)
        else:
            yield callback
