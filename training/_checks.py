"""Argument checks whose messages name the received value."""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> ValueError:
    """Return the error for an unknown name: it suggests similar names and lists all choices."""
    known = sorted(choices)
    nearest = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return ValueError(
        f"Unknown {kind}.{hint} Choose one of: {', '.join(known)}. Received: {kind}={name!r}"
    )


def unknown_options(owner: str, options: Iterable[str], allowed: Iterable[str]) -> TypeError:
    """Return the error for keyword arguments that `owner` does not accept."""
    received = ", ".join(sorted(options))
    return TypeError(
        f"{owner} does not accept these options. Allowed: {', '.join(sorted(allowed)) or 'none'}. "
        f"Received: {received}"
    )


def positive_number(name: str, value: object) -> float:
    """Return `value` as a float; raise a ValueError unless it is finite and above 0."""
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number > 0:
            return number
    raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")


def fraction(name: str, value: object) -> float:
    """Return `value` as a float; raise a ValueError unless it is in (0, 1)."""
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1:
        return float(value)
    raise ValueError(f"`{name}` must be between 0 and 1, exclusive. Received: {name}={value!r}")


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int; raise a ValueError unless it is a whole number >= `minimum`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum:
        return int(value)
    raise ValueError(
        f"`{name}` must be a whole number of at least {minimum}. Received: {name}={value!r}"
    )
