"""Choice of input columns, classes and head for a task on a CSV file."""

from collections.abc import Sequence

import numpy as np

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.tasks.own.table import Table

HEADS = ("classification", "regression")


def head_of(head: str | None, table: Table, target: str, window: int | None) -> str:
    """Return the requested head, or derive it from the cells of the target."""
    if head is None:
        head = "regression" if window or table.is_numeric(target) else "classification"
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    if head == "classification" and window is not None:
        raise ValueError(
            "With a window, the target is predicted as a number: remove `head` or `window`. "
            f"Received: head={head!r}, window={window!r}"
        )
    return head


def inputs_of(
    table: Table, target: str, features: Sequence[str] | None, window: int | None
) -> tuple[str, ...]:
    """Return the requested input columns, or all numeric columns."""
    if features is not None:
        names = (features,) if isinstance(features, str) else tuple(features)
        table.require(names)
        own = window is None and target in names
        if not names or len(set(names)) < len(names) or own:
            raise ValueError(
                "`features` must name columns, each once, and without a window not the target. "
                f"Received: features={list(names)!r}, target={target!r}, window={window!r}"
            )
        return names
    names = tuple(
        name
        for name in table.columns
        if (window is not None or name != target) and table.is_numeric(name)
    )
    if not names:
        raise ValueError(
            "No numeric column is left as an input; check `delimiter`. "
            f"Received: columns {', '.join(map(repr, table.columns))} in file={table.file!r}"
        )
    return names


def classes_of(table: Table, target: str) -> tuple[str, ...]:
    """Return the distinct cells of a column, sorted."""
    known = ~table.missing(target)
    cells = np.array(table.columns[target])[known]
    return tuple(sorted(set(cells.tolist())))
