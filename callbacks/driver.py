"""Who drives a training: the function whose loop calls the callbacks."""

import sys
from dataclasses import dataclass
from types import CodeType, FrameType

import keras


@dataclass(frozen=True)
class Driver:
    """The frame of `model.fit`, or of a loop that calls the callbacks itself.

    Kept by number and code, not by reference, so that nothing the frame holds stays alive.
    Keras tells callbacks nothing when `fit` raises; asking the threads' stacks is how to
    know whether a training that was begun still runs.
    """

    frame: int
    code: CodeType

    @classmethod
    def calling(cls, hook: str, known: "Driver | None" = None) -> "Driver":
        """The driver that is calling this callback hook; `known` itself if it is that one."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name == hook and frame.f_back:
            frame = frame.f_back
        assert frame is not None
        if known is not None and known._is(frame):
            return known
        return cls(id(frame), frame.f_code)

    def is_calling(self, caller: FrameType | None) -> bool:
        """Whether this driver makes a call, itself and not through a callback.

        A loop may call its callbacks from a function that has returned by now: then any call
        will do that does not come from a callback.

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
        """Whether this driver is on a thread's stack, and is not `other`."""
        return self != other and self.is_running()

    def is_running(self) -> bool:
        """Whether this driver is on a thread's stack."""
        return any(self._is_on(top) for top in sys._current_frames().values())

    def _is_on(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if self._is(frame):
                return True
            frame = frame.f_back
        return False

    def _is(self, frame: FrameType) -> bool:
        return id(frame) == self.frame and frame.f_code is self.code


# A callback's code runs below one of these; by `id`, as a code's hash is that of all it consists
# of, and takes long.
_HOOKS = {
    id(method.__code__): method.__code__
    for name, method in vars(keras.callbacks.CallbackList).items()
    if name.startswith("on_")
}
