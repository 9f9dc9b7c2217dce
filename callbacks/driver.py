"""Who drives a training: the function whose loop calls the callbacks."""

import sys
from dataclasses import dataclass
from types import CodeType, FrameType


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
    def calling(cls, hook: str) -> "Driver":
        """The driver that is calling this callback hook."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name == hook and frame.f_back:
            frame = frame.f_back
        assert frame is not None
        return cls(id(frame), frame.f_code)

    def is_running_beside(self, other: "Driver") -> bool:
        """Whether this driver is on a thread's stack, and is not `other`."""
        return self != other and any(self._is_on(top) for top in sys._current_frames().values())

    def _is_on(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if id(frame) == self.frame and frame.f_code is self.code:
                return True
            frame = frame.f_back
        return False
