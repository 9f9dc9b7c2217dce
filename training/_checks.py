"""Checks of arguments, with messages that name what was received."""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table: proposes the nearest, lists all."""
    known = sorted(choices)
    nearest = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return ValueError(
        f"Unknown {kind}.{hint} Choose one of: {', '.join(known)}. Received: {kind}={name!r}"
    )


def unknown_options(owner: str, options: Iterable[str], allowed: Iterable[str]) -> TypeError:
    """The error for keyword arguments that `owner` does not take."""
    received = ", ".join(sorted(options))
    return TypeError(
        f"{owner} does not take these options. Allowed: {', '.join(sorted(allowed)) or 'none'}. "
        f"Received: {received}"
    )


def positive_number(name: str, value: object) -> float:
    """`value` as a float; ValueError unless it is finite and above zero."""
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number > 0:
            return number
    raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")


def fraction(name: str, value: object) -> float:
    """`value` as a float; ValueError unless it lies between 0 and 1, both excluded."""
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1:
        return float(value)
    raise ValueError(f"`{name}` must lie between 0 and 1. Received: {name}={value!r}")


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `minimum`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum:
        return int(value)
    raise ValueError(
        f"`{name}` must be a whole number of at least {minimum}. Received: {name}={value!r}"
    )
