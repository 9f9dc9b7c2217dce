"""Callback that skips train steps with NaN or Inf, and its events."""

from gradkeeper.callbacks.guard.error import NonFiniteGradientError
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.loop import GuardedStep, StepModel
from gradkeeper.callbacks.guard.non_finite_guard import NonFiniteGuard
from gradkeeper.callbacks.guard.trigger import NormAbove, Unusual

__all__ = [
    "GuardEvent",
    "GuardedStep",
    "NonFiniteGradientError",
    "NonFiniteGuard",
    "NormAbove",
    "StepModel",
    "Unusual",
]
