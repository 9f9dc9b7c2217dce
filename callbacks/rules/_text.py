"""Wording that several rules share."""

from collections.abc import Sequence

_SHOWN = 4


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def span(first: int, last: int) -> str:
    """From one train step to another."""
    return f"step {first}" if first == last else f"steps {first} to {last}"


def times(ratio: float) -> str:
    """How many times as large, in as many digits as can be read."""
    return f"{ratio:,.0f} times" if ratio < 1e6 else f"{ratio:.3g} times"
