"""The parts of `NonFiniteGuard`: triggers, events and guarded steps of custom loops."""

from typing import TYPE_CHECKING, Any

from gradkeeper.callbacks.guard.event import GuardEvent, NonFiniteGradientError
from gradkeeper.callbacks.guard.trigger import NormAbove, NormZScore

if TYPE_CHECKING:
    from gradkeeper.callbacks.guard.loop import GuardedStep, StepModel

__all__ = [
    "GuardEvent",
    "GuardedStep",
    "NonFiniteGradientError",
    "NormAbove",
    "NormZScore",
    "StepModel",
]


def __getattr__(name: str) -> Any:
    """Return a name of `loop`, which requires TensorFlow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gradkeeper.callbacks.guard import loop

    return getattr(loop, name)
