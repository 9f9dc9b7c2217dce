"""Checks of single arguments; each message names what is allowed and what was received."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def positive_int(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def rate(name: str, value: Any) -> float:
    """A fraction of units to drop: at least 0 and less than 1."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(
            f"`{name}` must be a number of at least 0 and less than 1. Received: {name}={value!r}"
        )
    return float(value)


def choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    allowed = list(choices)
    if value not in allowed:
        names = ", ".join(repr(each) for each in allowed)
        raise ValueError(f"`{name}` must be one of {names}. Received: {name}={value!r}")
    return value


def no_unknown(owner: str, unknown: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuses keyword arguments that `owner` does not take."""
    names = sorted(unknown)
    if names:
        raise TypeError(
            f"{owner} takes the arguments {', '.join(sorted(allowed))}. "
            f"Received: {', '.join(names)}"
        )


def positive(name: str, value: Any) -> float:
    if not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(f"`{name}` must be a number above 0. Received: {name}={value!r}")
    return float(value)


def non_negative(name: str, value: Any) -> float:
    if not isinstance(value, Real) or not float(value) >= 0:
        raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value!r}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"`{name}` must be a number from 0 to 1. Received: {name}={value!r}")
    return float(value)


def interval(name: str, value: Any) -> tuple[float, float]:
    """Two numbers in (0, 1), the least first."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(x, Real) for x in pair)
        or not 0 < pair[0] <= pair[1] < 1
    ):
        raise ValueError(
            f"`{name}` must be two numbers between 0 and 1, the least first. Received: {name}={value!r}"
        )
    return float(pair[0]), float(pair[1])
