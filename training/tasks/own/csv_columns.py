"""The input columns, the target and the head of a task on a CSV file."""

from collections.abc import Sequence

import numpy as np

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.tasks.own.table import Table

HEADS = ("classification", "regression")


def head_of(head: str | None, table: Table, target: str, window: int | None) -> str:
    """ "regression" or "classification", as asked for, or as the cells of the target say."""
    if head is None:
        head = "regression" if window or table.is_numeric(target) else "classification"
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    if head == "classification" and window is not None:
        raise ValueError(
            "The rows behind a window are predicted as numbers. "
            f"Received: head={head!r}, window={window!r}"
        )
    return head


def inputs_of(
    table: Table, target: str, features: Sequence[str] | None, window: int | None
) -> tuple[str, ...]:
    """The input columns, as asked for, or all columns of numbers."""
    if features is not None:
        names = (features,) if isinstance(features, str) else tuple(features)
        table.require(names)
        own = window is None and target in names
        if not names or len(set(names)) < len(names) or own:
            raise ValueError(
                "`features` must name columns, each once, without a window except the target. "
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
            "No column of numbers is left as an input; another `delimiter` may be needed. "
            f"Received: columns {', '.join(map(repr, table.columns))} in file={table.file!r}"
        )
    return names


def classes_of(table: Table, target: str) -> tuple[str, ...]:
    """The different cells of a column, sorted."""
    known = ~table.missing(target)
    cells = np.array(table.columns[target])[known]
    return tuple(sorted(set(cells.tolist())))
