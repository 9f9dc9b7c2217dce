"""Identification of the frame whose loop calls the callbacks."""

import sys
from dataclasses import dataclass
from types import CodeType, FrameType

import keras


@dataclass(frozen=True)
class Driver:
    """Frame of `model.fit`, or of a custom loop that calls the callbacks.

    The frame is stored by id and code object, not by reference, so that its locals are not kept
    alive. Keras does not notify callbacks when `fit` raises. The stacks of all threads show
    whether a run is still active.
    """

    frame: int
    code: CodeType

    @classmethod
    def calling(cls, hook: str, known: "Driver | None" = None) -> "Driver":
        """Return the driver that calls this callback hook; `known` if it is the same driver."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name == hook and frame.f_back:
            frame = frame.f_back
        assert frame is not None
        if known is not None and known._is(frame):
            return known
        return cls(id(frame), frame.f_code)

    def is_calling(self, caller: FrameType | None) -> bool:
        """Return True if a call comes directly from this driver, not from a callback.

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

    def is_running_beside(self, other: "Driver | None") -> bool:
        """Return True if this driver is not `other` and is on the stack of a thread."""
        return self != other and self.is_running()

    def is_running(self) -> bool:
        """Return True if this driver is on the stack of a thread."""
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
