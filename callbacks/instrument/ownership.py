"""Ownership of the observers that callbacks reuse."""

import weakref
from typing import Any, Protocol

import keras


class Owner(Protocol):
    """Reader of an observer's records."""

    def flush(self) -> None:
        """Read the pending records."""


class CallTimer(Protocol):
    """Timer of the calls of the train function."""

    def call_begins(self, observer: Any) -> None:
        """Called before each call of the train function."""

    def call_ends(self, observer: Any, result: Any = None) -> None:
        """Called after the train function has returned.

        Args:
            observer: the observer.
            result: what the train function has returned, on JAX and torch.
        """


class Owned:
    """Base of observers that callbacks with equal options reuse, one after the other.

    A later callback therefore does not trace the step again. The records belong to the current
    owner; see `acquire`.

    Attributes:
        has_seen_gradients: whether an optimizer was called in a train step that was traced or run.
        optimizers: the optimizers whose calls are observed; None for all.
        timer: timer of the calls of the train function; None without one.
        is_called_by_keras: whether Keras's own train function calls the train step, and no user
            function wraps that train function.
    """

    def __init__(self, optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None) -> None:
        self.has_seen_gradients = False
        self.optimizers = optimizers
        self.timer: CallTimer | None = None
        self.is_called_by_keras = False
        self._owner: weakref.ref[Owner] | None = None

    def acquire(self, owner: Owner) -> bool:
        """Transfer ownership to `owner`, after flushing pending records to the previous owner.

        Returns:
            True if the owner has changed.
        """
        before = self._owner() if self._owner else None
        if before is owner:
            return False
        if before is not None:
            before.flush()
        self._owner = weakref.ref(owner)
        self.timer = None
        self.reset()
        return True

    def observes(self, optimizer: keras.optimizers.Optimizer) -> bool:
        """Return True if calls of the optimizer are observed."""
        return self.optimizers is None or any(optimizer is each for each in self.optimizers)

    def is_owned_by(self, owner: Owner | None) -> bool:
        """Return True if `owner` is the current owner."""
        return self._owner is not None and self._owner() is owner

    def reset(self) -> None:
        """Discard the records."""
