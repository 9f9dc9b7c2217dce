"""Options and status of a guard, and the data that it captures, on any backend."""

from dataclasses import dataclass
from typing import Any

from gradkeeper.callbacks.capsule.capsule import State
from gradkeeper.callbacks.guard.trigger import Trigger

NOT_REQUESTED = "writing training data is disabled (capsule_data=False)"


@dataclass(frozen=True)
class SkipOptions:
    """Options of the checks. Callbacks with equal options can share them.

    Attributes:
        refuses: whether to skip bad steps; otherwise they are only recorded.
        halts_after: number of consecutive bad steps after which every step is skipped until
            the host has read them; 0 for never.
        checks_loss: whether a non-finite loss makes a step bad.
        trigger: condition that makes a finite but too large gradient bad; None for none.
        checks_updates: whether to check the variables after each update; None to check where
            `update_may_not_be_finite` returns True.
        keeps: whether to capture bad steps for a capsule.
        keeps_batch: whether to capture their batches.
        outruns_host: whether further steps may follow a bad step before the host reads it.
    """

    refuses: bool
    halts_after: int
    checks_loss: bool
    trigger: Trigger | None
    checks_updates: bool | None = None
    keeps: bool = False
    keeps_batch: bool = True
    outruns_host: bool = False

    def can_keep(self, compiled: bool) -> bool:
        """Return True if bad steps can be captured. XLA overwrites the state of an applied step."""
        return self.keeps and (self.refuses or not compiled)


@dataclass(frozen=True)
class SkipStatus:
    """Status of a guard between two train steps.

    Attributes:
        steps: number of train steps so far.
        has_skips: True if a bad step was recorded since the last `drain`.
        has_halted: True if every step is skipped until `resume`.
    """

    steps: int
    has_skips: bool
    has_halted: bool


@dataclass(frozen=True)
class FailureCapture:
    """Captured data of a bad step.

    Attributes:
        step: the train step, counted from the first.
        batches: the batch of each replica, or the reason why there is none.
        state: the model's state before the step; None if the model still has it.
    """

    step: int
    batches: list[Any] | str
    state: State | None
