"""The parts of `NonFiniteGuard`: triggers, events and guarded steps of custom loops."""

from gradkeeper.callbacks.guard.event import GuardEvent, NonFiniteGradientError
from gradkeeper.callbacks.guard.transform import GuardedStep, StepModel
from gradkeeper.callbacks.guard.trigger import NormAbove, NormZScore

__all__ = [
    "GuardEvent",
    "GuardedStep",
    "NonFiniteGradientError",
    "NormAbove",
    "NormZScore",
    "StepModel",
]
