"""Text of messages: names of layers, lists and spans."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

Names: TypeAlias = str | Iterable[str]


def patterns_of(*names: Names) -> tuple[str, ...]:
    """Return a flat tuple of patterns from names and lists of names.

    Raises:
        ValueError: if there is no name.
    """
    given = tuple(
        pattern for each in names for pattern in ([each] if isinstance(each, str) else each)
    )
    if not given:
        raise ValueError(
            "Name at least one layer or variable; pass no `layers` argument for all. "
            f"Received: layers={list(names[0]) if names else []}"
        )
    return given


def matches(path: str, pattern: str) -> bool:
    """Return True if a pattern matches a variable or a layer that contains it.

    Args:
        path: path of the variable, such as `encoder/memory/lstm_cell/kernel`.
        pattern: a Keras layer name (`memory`), a path of layers (`encoder/memory`), or the path
            or name of the variable; `*`, `?` and `[...]` are wildcards.
    """
    parts = path.split("/")
    return any(
        fnmatchcase("/".join(parts[first:last]), pattern)
        for first in range(len(parts))
        for last in range(len(parts), first, -1)
    )


def matching(paths: Sequence[str], patterns: Sequence[str]) -> list[int]:
    """Return the indices of the paths that match any of the patterns, in ascending order.

    Raises:
        ValueError: if a pattern matches no path.
    """
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            raise ValueError(_no_match(paths, pattern))
    return [
        position
        for position, path in enumerate(paths)
        if any(matches(path, pattern) for pattern in patterns)
    ]


def _no_match(paths: Sequence[str], pattern: str) -> str:
    layers = list(dict.fromkeys(path.rpartition("/")[0] or path for path in paths))
    parts = list(dict.fromkeys(part for path in paths for part in path.split("/")))
    near = difflib.get_close_matches(pattern, [*layers, *parts], n=2)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return (
        f"No layer or variable matches {pattern!r}. {hint}The layers are: "
        f"{listed(layers, most=20)}. Received: layers={pattern!r}"
    )


def listed(names: Sequence[str], *, most: int = 4) -> str:
    """Return the first names, four by default, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def span(first: int, last: int) -> str:
    """Return a range of train steps as text."""
    return f"step {first}" if first == last else f"steps {first} to {last}"


def with_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 step" or "2,000 steps"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def times(ratio: float) -> str:
    """Return a ratio as text, such as "2,000 times" or "3.7e+17 times"."""
    return f"{ratio:,.0f} times" if ratio < 1e6 else f"{ratio:.3g} times"


def print_on_new_line(message: str) -> None:
    """Print a message; the current line may show a progress bar."""
    from gradkeeper.callbacks._keras_private import print_msg  # late: loads Keras

    print_msg(f"\n{message}")


def print_failure(source: str, error: BaseException, consequence: str) -> None:
    """Print the source of an exception, the exception and its consequence.

    The message is printed even with `verbose=0`, because records may be missing.
    """
    print_on_new_line(
        f"GradientMonitor: {source} raised {type(error).__name__}: {error}. {consequence}"
    )
