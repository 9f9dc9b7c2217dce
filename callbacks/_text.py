"""Text of messages."""

from collections.abc import Sequence

from gradkeeper.callbacks._keras_private import print_msg

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


def print_failure(source: str, error: Exception, consequence: str) -> None:
    """Print the source of an exception, the exception and its consequence.

    The message is printed even with `verbose=0`, because records may be missing.
    """
    # The message starts on a new line, because the current line may show a progress bar.
    print_msg(f"\nGradientMonitor: {source} raised {type(error).__name__}: {error}. {consequence}")
