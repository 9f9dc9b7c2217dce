"""Checks of single arguments. Each message names the allowed values and the received one."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def positive_int(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def rate(name: str, value: Any) -> float:
    """Return a dropout rate as a float, after checking that it is in [0, 1)."""
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
    """Raise TypeError if there are keyword arguments that `owner` does not take."""
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
    """Return two floats, after checking that 0 < low <= high < 1."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(x, Real) for x in pair)
        or not 0 < pair[0] <= pair[1] < 1
    ):
        raise ValueError(
            f"`{name}` must be two numbers between 0 and 1, lower first. Received: {name}={value!r}"
        )
    return float(pair[0]), float(pair[1])
