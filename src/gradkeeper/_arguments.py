"""Checks of arguments, whose messages name the allowed values and the received one."""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeVar

T = TypeVar("T")


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int; raise ValueError unless it is an integer of at least `minimum`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum:
        return int(value)
    raise ValueError(
        f"`{name}` must be an integer of at least {minimum}. Received: {name}={value!r}"
    )


def number(name: str, value: object, interval: str = "(0, inf)") -> float:
    """Return `value` as a float; raise ValueError unless it is a number in the interval.

    Args:
        interval: such as "[0, 1)", where a square bracket includes the bound.
    """
    low, high = map(float, interval[1:-1].split(","))
    if isinstance(value, Real) and not isinstance(value, bool):
        given = float(value)
        above = given >= low if interval[0] == "[" else given > low
        below = given <= high if interval[-1] == "]" else given < high
        if above and below:
            return given
    allowed = f"a number in {interval}"
    if math.isinf(high):
        finite = "" if interval[-1] == "]" else "finite "
        least = f" {'of at least' if interval[0] == '[' else 'above'} {low:g}"
        allowed = f"a {finite}number{'' if math.isinf(low) else least}"
    raise ValueError(f"`{name}` must be {allowed}. Received: {name}={value!r}")


def boolean(name: str, value: T) -> T:
    """Return `value`; raise ValueError unless it is True or False."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")


def interval(name: str, value: object) -> tuple[float, float]:
    """Return two floats; raise ValueError unless 0 < first <= second < 1."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(each, Real) for each in pair)
        or not 0 < pair[0] <= pair[1] < 1
    ):
        raise ValueError(
            f"`{name}` must be two numbers between 0 and 1, lower first. Received: {name}={value!r}"
        )
    return float(pair[0]), float(pair[1])


def choice(name: str, value: T, choices: Iterable[object]) -> T:
    """Return `value`; raise ValueError unless it is one of the choices.

    The message suggests choices that are spelled similarly.
    """
    allowed = list(choices)
    if value in allowed:
        return value
    known = sorted(map(str, allowed))
    names = [each for each in known if each in allowed]
    similar = difflib.get_close_matches(str(value).lower(), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, similar))}?" if similar else ""
    raise ValueError(
        f"Unknown {name}.{hint} Choose one of: {', '.join(known)}. Received: {name}={value!r}"
    )


def no_unknown(owner: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise TypeError if there are argument names that `owner` does not take.

    Args:
        names: the given names that are not among the allowed ones.
    """
    unknown = ", ".join(sorted(names))
    if unknown:
        known = ", ".join(sorted(allowed)) or "none"
        raise TypeError(f"{owner} takes the arguments {known}. Received: {unknown}")
