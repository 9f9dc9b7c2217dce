"""Temporary replacement of attributes and of functions in closures."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import getitem, setitem
from typing import Any, NamedTuple

import keras

_MODULE = keras.Model.make_train_function.__module__
_NOTHING = object()


def is_made_by_keras(function: Any) -> bool:
    """Return True if `keras.Model.make_train_function` made the function."""
    return getattr(function, "__module__", None) == _MODULE


class FunctionSlot(NamedTuple):
    """Slot in which a function keeps another function: a closure cell or a named value.

    Attributes:
        read: returns the object in the slot.
        put: replaces the object in the slot.
    """

    read: Callable[[], Any]
    put: Callable[[Any], None]

    @contextmanager
    def replaced_by(self, function: Callable) -> Iterator[None]:
        """Keep `function` in the slot inside the block."""
        before = self.read()
        self.put(function)
        try:
            yield
        finally:
            self.put(before)


def find_train_function(function: Any) -> FunctionSlot | None:
    """Return the slot in which a train function keeps the one that Keras made; None without one.

    The search covers the closure of the function, the attributes of its object and the global names
    that it uses, and does the same for each function found there.
    """
    waiting, visited = [function], set()
    while waiting:
        each = waiting.pop()
        if id(each) in visited:
            continue
        visited.add(id(each))
        for place in _places(each):
            content = place.read()
            if is_made_by_keras(content):
                return place
            if inspect.isroutine(content):
                waiting.append(content)
    return None


def holds(function: Any, content: Any) -> bool:
    """Return True if the function closes over the content, directly or through other functions."""
    waiting, visited = [function], set()
    while waiting:
        each = inspect.unwrap(waiting.pop())
        if id(each) in visited or not inspect.isfunction(each):
            continue
        visited.add(id(each))
        there = [slot.read() for slot in _closure(each)]
        if any(each is content for each in there):
            return True
        waiting += there
    return False


def _places(function: Any) -> Iterator[FunctionSlot]:
    owner = getattr(function, "__self__", function)
    is_plain = not isinstance(owner, (keras.Model, type)) and not inspect.ismodule(owner)
    if is_plain and hasattr(owner, "__dict__"):
        yield from _named(vars(owner), list(vars(owner)))
    plain = inspect.unwrap(getattr(function, "__func__", function))
    if inspect.isfunction(plain):
        yield from _closure(plain)
        yield from _named(plain.__globals__, plain.__code__.co_names)


def _named(values: dict[str, Any], names: Iterable[str]) -> Iterator[FunctionSlot]:
    for name in names:
        if name in values:
            yield FunctionSlot(partial(getitem, values, name), partial(setitem, values, name))


def _closure(function: Any) -> Iterator[FunctionSlot]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            cell.cell_contents  # noqa: B018 - raises if the cell is empty
            yield FunctionSlot(
                partial(getattr, cell, "cell_contents"), partial(setattr, cell, "cell_contents")
            )


class AttributePatch:
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
        self._is_applied = False

    def apply(self) -> None:
        """Apply the patch; reuse the last wrapper if the wrapped attribute is the same."""
        # Write to the instance's dict, because Keras's `__setattr__` would track the value.
        attributes, owner, name = vars(self._owner), self._owner, self._name
        before, inherited = attributes.get(name, _NOTHING), getattr(type(owner), name, None)
        if self._wrapper is None or self._before is not before or self._inherited is not inherited:
            self._before, self._inherited = before, inherited
            self._wrapper = self._make(owner)
        attributes[name] = self._wrapper
        self._is_applied = True

    def is_called_by(self, function: Callable) -> bool:
        """Return True if the function, or a function in its closure, closes over the wrapper."""
        return self._wrapper is not None and holds(function, self._wrapper)

    def revert(self) -> None:
        """Revert the patch if it is applied."""
        if not self._is_applied:
            return
        self._is_applied = False
        if self._before is _NOTHING:
            del vars(self._owner)[self._name]
        else:
            vars(self._owner)[self._name] = self._before
