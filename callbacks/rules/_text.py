"""Text formatting that several rules share."""

from collections.abc import Sequence

_SHOWN = 4


def listed(names: Sequence[str]) -> str:
    """Return the first four names and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def span(first: int, last: int) -> str:
    """Return a range of train steps as text."""
    return f"step {first}" if first == last else f"steps {first} to {last}"


def times(ratio: float) -> str:
    """Return a ratio as text, such as "2,000 times" or "3.7e+17 times"."""
    return f"{ratio:,.0f} times" if ratio < 1e6 else f"{ratio:.3g} times"
