"""Temporary patch of an instance's attribute."""

from collections.abc import Callable
from typing import Any

from gradkeeper.callbacks.tap.substitution import holds

_NOTHING = object()


class Point:
    """Temporary patch that replaces an attribute of an instance with a wrapper.

    Args:
        owner: the instance.
        name: the name of the attribute.
        make: returns the wrapper of the owner's current attribute; called with the owner.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Any], Callable]) -> None:
        self._owner, self._name, self._make = owner, name, make
        self._before: Any = _NOTHING
        self._inherited: Any = None
        self._wrapper: Callable | None = None
        self._is_put = False

    def put(self) -> None:
        """Apply the patch; reuse the last wrapper if the wrapped attribute is the same."""
        # Write to the instance's dict, because Keras's `__setattr__` would track the value.
        attributes, owner, name = vars(self._owner), self._owner, self._name
        before, inherited = attributes.get(name, _NOTHING), getattr(type(owner), name, None)
        if self._wrapper is None or self._before is not before or self._inherited is not inherited:
            self._before, self._inherited = before, inherited
            self._wrapper = self._make(owner)
        attributes[name] = self._wrapper
        self._is_put = True

    def is_held_by(self, function: Callable) -> bool:
        """Return True if the function, or a function in its closure, closes over the wrapper."""
        return self._wrapper is not None and holds(function, self._wrapper)

    def take_back(self) -> None:
        """Revert the patch if it is applied."""
        if not self._is_put:
            return
        self._is_put = False
        if self._before is _NOTHING:
            del vars(self._owner)[self._name]
        else:
            vars(self._owner)[self._name] = self._before
