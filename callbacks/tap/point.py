"""An instance's attribute put in place for the length of one call, and taken back."""

from collections.abc import Callable
from typing import Any

from gradkeeper.callbacks.tap.substitution import holds

_NOTHING = object()


class Point:
    """An attribute of an instance with a wrapper of ours in its place, for a while.

    Args:
        owner: the instance.
        name: the attribute's.
        make: makes the wrapper, for the owner as it is at that time.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Any], Callable]) -> None:
        self._owner, self._name, self._make = owner, name, make
        self._before: Any = _NOTHING
        self._inherited: Any = None
        self._wrapper: Callable | None = None
        self._is_put = False

    def put(self) -> None:
        """Puts the wrapper there; the one of the last time if what it wraps is the same."""
        # Straight into the instance's dict: Keras's __setattr__ would track the value.
        attributes, owner, name = vars(self._owner), self._owner, self._name
        before, inherited = attributes.get(name, _NOTHING), getattr(type(owner), name, None)
        if self._wrapper is None or self._before is not before or self._inherited is not inherited:
            self._before, self._inherited = before, inherited
            self._wrapper = self._make(owner)
        attributes[name] = self._wrapper
        self._is_put = True

    def is_held_by(self, function: Callable) -> bool:
        """Whether the function has the wrapper in a closure, its own or one of those in it."""
        return self._wrapper is not None and holds(function, self._wrapper)

    def take_back(self) -> None:
        """Leaves the attribute as `put` found it, if that was called."""
        if not self._is_put:
            return
        self._is_put = False
        if self._before is _NOTHING:
            del vars(self._owner)[self._name]
        else:
            vars(self._owner)[self._name] = self._before
