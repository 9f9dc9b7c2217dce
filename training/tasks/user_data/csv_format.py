"""Columns of a CSV file, and their conversion to model inputs and from model outputs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradkeeper._arguments import choice
from gradkeeper.training.tasks.user_data.table import Table, missing_report


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each column.

    Attributes:
        mean: The mean of each column.
        deviation: The standard deviation of each column; 1 for a column of equal values.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def fit(cls, values: np.ndarray, names: Sequence[str]) -> "Scaling":
        """Compute the scaling of `values` [rows, columns], ignoring NaN cells.

        Raises:
            ValueError: A column has no finite value.
        """
        has_value = np.isfinite(values).any(axis=0)
        empty = [name for name, has in zip(names, has_value, strict=True) if not has]
        if empty:
            raise ValueError(
                "Every column must have a finite value in the training part. Received: no finite "
                f"value in {', '.join(map(repr, empty))}"
            )
        varies = np.nanmax(values, axis=0) > np.nanmin(values, axis=0)
        deviation = np.where(varies, np.nanstd(values, axis=0), 1.0)
        return cls(tuple(np.nanmean(values, axis=0).tolist()), tuple(deviation.tolist()))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Standardize `values`, [..., columns]."""
        return (values - np.array(self.mean)) / np.array(self.deviation)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Convert standardized `values` to the units of the columns, [..., columns]."""
        return values * np.array(self.deviation) + np.array(self.mean)


HEADS = ("classification", "regression")


def head_of(head: str | None, table: Table, target: str, window: int | None) -> str:
    """Return the requested head, or derive it from the cells of the target.

    Raises:
        ValueError: The cells are neither numbers nor a few classes.
    """
    if head is None:
        head = "regression" if window or table.is_numeric(target) else "classification"
        if head == "classification":
            _require_classes(table, target)
    choice("head", head, HEADS)
    if head == "classification" and window is not None:
        raise ValueError(
            "With a window, the target is predicted as a number: remove `head` or `window`. "
            f"Received: head={head!r}, window={window!r}"
        )
    return head


def _require_classes(table: Table, target: str) -> None:
    """Raise a ValueError if most cells of a column are numbers, or nearly all are different."""
    numeric = table.numeric(target)
    if 2 * numeric.sum() > len(numeric):
        bad = int(np.flatnonzero(~numeric & ~table.missing(target))[0])
        raise ValueError(
            "The target has numbers and other cells. Correct the file, or set "
            "head='classification' (--option head=classification) if each value is a class. "
            f"Received: {table.columns[target][bad]!r} in line {table.lines[bad]} of "
            f"file={table.file!r}, target={target!r}"
        )
    classes = len(classes_of(table, target))
    if classes > max(20, len(table) / 2):
        raise ValueError(
            "The target has nearly as many different values as rows. Numbers must have a decimal "
            "point and no thousands separator. If each value is a class, set "
            f"head='classification'. Received: {classes} values in {len(table)} rows of "
            f"file={table.file!r}, target={target!r}"
        )


def inputs_of(
    table: Table, target: str, features: Sequence[str] | None, window: int | None
) -> tuple[str, ...]:
    """Return the requested input columns, or all numeric columns."""
    if features is not None:
        given = [features] if isinstance(features, (str, int)) else features
        names = tuple(map(str, given))
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


REFUSE, DROP = "refuse", "drop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvFormat:
    """Columns, window and scaling that prediction needs besides the model.

    Attributes:
        inputs: The columns that the model reads, in order.
        target: The column that it predicts.
        window: Rows per input; None if each row is an example.
        horizon: Number of rows to predict after a window.
        delimiter: The character between two cells.
        missing: "refuse" or "drop".
        classes: The values of the target, in the order of the model's outputs; empty for a
            regression.
        input_scaling: Scaling of the inputs.
        target_scaling: Scaling of the target; None for a classification.
    """

    inputs: tuple[str, ...]
    target: str
    window: int | None
    horizon: int
    delimiter: str
    missing: str
    classes: tuple[str, ...]
    input_scaling: Scaling
    target_scaling: Scaling | None

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "CsvFormat":
        """Recreate a format from the JSON of `dataclasses.asdict`."""
        scalings = {
            name: None
            if stored[name] is None
            else Scaling(tuple(stored[name]["mean"]), tuple(stored[name]["deviation"]))
            for name in ("input_scaling", "target_scaling")
        }
        sequences = {name: tuple(stored[name]) for name in ("inputs", "classes")}
        return cls(**{**stored, **scalings, **sequences})

    def examples(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Convert a table to inputs.

        Returns:
            The last row of each input, int [examples], and the inputs, float32 [examples,
            steps, features], with NaN for missing values. With a window, the steps are its rows
            and the features the columns; without one, the steps are the columns, with one feature.
        """
        values = self.input_scaling.apply(table.numbers(self.inputs)).astype(np.float32)
        if self.window is None:
            return np.arange(len(table)), values[:, :, None]
        return np.arange(self.window - 1, len(table)), windows(values, self.window)

    def answers(self, outputs: np.ndarray) -> dict[str, list[Any]]:
        """Convert a model's outputs [examples, units] to columns, in the units of the target."""
        if self.target_scaling is None:
            logits = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            return {
                self.target: [self.classes[each] for each in shares.argmax(axis=1)],
                "probability": shares.max(axis=1).tolist(),
            }
        values = self.target_scaling.undo(outputs.astype(np.float64))
        if self.window is None:
            return {self.target: values[:, 0].tolist()}
        return {
            f"{self.target}+{each + 1}": values[:, each].tolist() for each in range(self.horizon)
        }

    def require_complete(self, table: Table, names: Sequence[str]) -> str:
        """Report the missing values; raise an error if the format refuses them.

        Raises:
            ValueError: Values are missing, and `missing` is "refuse".
        """
        report = missing_report({name: table.missing(name) for name in names}, table.lines)
        if report and self.missing == REFUSE:
            raise ValueError(
                "The file has missing values. Fill them in, or train with `missing='drop'` "
                "(--option missing=drop), which drops the examples that contain them. "
                f"Received: {report}, "
                f"file={table.file!r}"
            )
        return report


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """Return all windows of consecutive rows, [rows - length + 1, length, columns], as a view.

    Raises:
        ValueError: There are fewer rows than a window needs.
    """
    if len(values) < length:
        raise ValueError(f"A window needs {length} rows. Received: {len(values)} rows")
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=0).swapaxes(1, 2)
