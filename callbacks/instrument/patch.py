"""Temporary replacement of attributes and of functions in closures."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras


def is_made_by_keras(function: Any) -> bool:
    """Return True if `keras.Model.make_train_function` made the function."""
    return getattr(function, "__module__", None) == _MODULE


class FunctionSlot:
    """Slot in which a function keeps another function: a closure cell or a named value.

    Args:
        cell: the closure cell; None for a named value.
        names: the dict that holds the function; None for a closure cell.
        name: the function's key in `names`.
    """

    def __init__(self, cell: Any = None, names: dict[str, Any] | None = None, name: str = ""):
        self._cell, self._names, self._name = cell, names, name

    @property
    def content(self) -> Any:
        """Return the object in the slot."""
        return self._cell.cell_contents if self._names is None else self._names[self._name]

    @contextmanager
    def replaced_by(self, function: Callable) -> Iterator[None]:
        """Keep `function` in the slot inside the block."""
        before = self.content
        self._put(function)
        try:
            yield
        finally:
            self._put(before)

    def _put(self, content: Any) -> None:
        if self._names is None:
            self._cell.cell_contents = content
        else:
            self._names[self._name] = content


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
            if is_made_by_keras(place.content):
                return place
            if inspect.isroutine(place.content):
                waiting.append(place.content)
    return None


def holds(function: Any, content: Any) -> bool:
    """Return True if the function closes over the content, directly or through other functions."""
    waiting, visited = [function], set()
    while waiting:
        each = inspect.unwrap(waiting.pop())
        if id(each) in visited or not inspect.isfunction(each):
            continue
        visited.add(id(each))
        there = [cell.cell_contents for cell in each.__closure__ or () if _is_filled(cell)]
        if any(each is content for each in there):
            return True
        waiting += there
    return False


def _places(function: Any) -> Iterator[FunctionSlot]:
    owner = getattr(function, "__self__", function)
    if not isinstance(owner, (keras.Model, type)) and not inspect.ismodule(owner):
        yield from (FunctionSlot(names=vars(owner), name=name) for name in _names(owner))
    plain = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(plain):
        return
    for cell in plain.__closure__ or ():
        if _is_filled(cell):
            yield FunctionSlot(cell)
    for name in plain.__code__.co_names:
        if name in plain.__globals__:
            yield FunctionSlot(names=plain.__globals__, name=name)


def _names(owner: Any) -> list[str]:
    return list(vars(owner)) if hasattr(owner, "__dict__") else []


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises if the cell is empty
    except ValueError:
        return False
    return True


_MODULE = keras.Model.make_train_function.__module__


_NOTHING = object()


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
