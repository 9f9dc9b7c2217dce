"""Your own CSV file: a time series, or one example per row."""

import dataclasses
import functools
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper._arguments import choice, integer, number
from gradkeeper.training.tasks.in_memory import InMemoryTask, in_order
from gradkeeper.training.tasks.user_data.csv_format import (
    DROP,
    REFUSE,
    CsvFormat,
    Scaling,
    classes_of,
    head_of,
    inputs_of,
)
from gradkeeper.training.tasks.user_data.table import Table
from gradkeeper.training.tasks.user_data.target import TargetTask, checked_targets

_PARTS = ("training", "validation", "test")


class CsvFile(TargetTask, InMemoryTask):
    """Predict a column of a CSV file of yours, a time series or one example per row.

    The file is UTF-8, and its first line names the columns. With `window` the file is a time
    series with a row per time step, the earliest first. The model reads the input columns of
    `window` consecutive rows and predicts the target column of the next `horizon` rows. Without
    `window` each row is an example. The model reads the row's input columns, in order, as time
    steps of one feature, and predicts the target column of the same row.

    Inputs: float32 [batch, window, columns], or [batch, columns, 1] without a window.
    Targets: float32 [batch, horizon] for a regression, int32 [batch] for a classification.

    The rows are split in order: first training, then validation (`evaluation_dataset`), then test
    (`test_dataset`). A window belongs to the part that contains all rows that it predicts. Inputs
    and the target of a regression are standardized with the mean and the standard deviation of
    the training rows.

    Baseline of a series: the smaller of two mean squared errors on the validation part: of the
    mean of the training targets, and of the last value in the window ("persistence"). Other
    baselines: see `Arrays`.

    Args:
        file: The CSV file.
        target: The column to predict.
        window: Rows per window; None for one example per row.
        horizon: Number of rows to predict after a window.
        features: The input columns; by default all numeric columns, without a window except
            the target.
        head: "regression" or "classification" (without a window only). None: classification if
            the target has non-numeric values.
        missing: "refuse" a file with missing values, or "drop" the examples and windows that
            contain them. A cell that is empty, NA, N/A, NaN, null, none or ? is missing.
        delimiter: The character between two cells.
        evaluation_fraction: Fraction of the rows for validation.
        test_fraction: Fraction of the rows for the test part, at the end of the file.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a CSV file, lacks a column, has a non-numeric cell, has missing
            values while `missing` is "refuse", or has a part without an example.
    """

    name = "csv"

    def __init__(
        self,
        *,
        file: str | PathLike[str],
        target: str,
        window: int | None = None,
        horizon: int = 1,
        features: Sequence[str] | None = None,
        head: str | None = None,
        missing: str = REFUSE,
        delimiter: str = ",",
        evaluation_fraction: float = 0.15,
        test_fraction: float = 0.15,
        **common: Any,
    ) -> None:
        shares = _shares(evaluation_fraction, test_fraction)
        choice("missing", missing, (DROP, REFUSE))
        if window is None and horizon != 1:
            raise ValueError(
                "`horizon` counts the rows after a window. Set `window`, or remove `horizon`. "
                f"Received: horizon={horizon!r}, window=None"
            )
        target = str(target)
        table = Table.read(file, delimiter=delimiter)
        table.require([target])
        head = head_of(head, table, target, window)
        bounds = _bounds(len(table), shares)
        self._format = CsvFormat(
            inputs=inputs_of(table, target, features, window),
            target=target,
            window=None if window is None else integer("window", window),
            horizon=integer("horizon", horizon),
            delimiter=delimiter,
            missing=missing,
            classes=classes_of(table, target) if head == "classification" else (),
            input_scaling=Scaling((), ()),
            target_scaling=None,
        )
        gaps = self._format.require_complete(table, list(dict.fromkeys(self._used)))
        self._format = _scaled(self._format, table, bounds[0][1])
        parts = self._parts(table, bounds)
        steps = parts[0][0].shape[1]
        self._set_targets(head, parts[0][1], parts[1][1], steps=steps)
        self._test = (parts[2][0], checked_targets(head, parts[2][1], steps))
        self._report = _report(table, self._format, bounds, gaps, parts)
        super().__init__(
            (parts[0][0], self._train_targets),
            (parts[1][0], self._evaluation_targets),
            options={
                "file": str(file),
                "target": target,
                "window": window,
                "horizon": horizon,
                "features": None if features is None else list(self._format.inputs),
                "head": head,
                "missing": missing,
                "delimiter": delimiter,
                "evaluation_fraction": shares[0],
                "test_fraction": shares[1],
            },
            **common,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features]."""
        return self._train[0].shape[1:]

    @property
    def report(self) -> str:
        """Text with the columns, the missing values, and the rows of each part."""
        return self._report

    @property
    def prediction_settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self._format)

    @property
    def output_units(self) -> int:
        """The horizon, or the number of classes."""
        return len(self._format.classes) or self._format.horizon

    def test_dataset(self, batch_size: int) -> tf.data.Dataset:
        """Return the test part, once, in the format of `evaluation_dataset`."""
        return in_order(self._test, batch_size, self.to_model)

    @functools.cached_property
    def baseline(self) -> float:
        """Loss of the forecast that `baseline_label` describes."""
        return min(self._errors.values())

    @property
    def baseline_label(self) -> str:
        """Description of the baseline, with its unit."""
        if self.head == "classification":
            return super().baseline_label
        return min(self._errors, key=self._errors.__getitem__)

    @functools.cached_property
    def _errors(self) -> dict[str, float]:
        errors = {f"{super().baseline_label}, standardized": super().baseline}
        if self._format.window is not None and self._format.target in self._format.inputs:
            inputs, targets = self._evaluation
            last = inputs[:, -1:, self._format.inputs.index(self._format.target)]
            error = float(np.square(last - targets, dtype=np.float64).mean())
            errors["mean squared error of the last value in the window, standardized"] = error
        return errors

    @property
    def _used(self) -> tuple[str, ...]:
        return (*self._format.inputs, self._format.target)

    def _parts(
        self, table: Table, bounds: Sequence[tuple[int, int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return inputs and targets of the training, validation and test part without gaps."""
        form = self._format
        last_rows, inputs = form.examples(table)
        targets = _targets(form, table)
        ahead = 0 if form.window is None else form.horizon
        first = last_rows + (1 if ahead else 0)
        known = np.isfinite(inputs).all(axis=(1, 2)) & (last_rows + ahead < len(table))
        found = []
        for name, (start, stop) in zip(_PARTS, bounds, strict=True):
            inside = known & (first >= start) & (last_rows + ahead < stop)
            rows = np.flatnonzero(inside)
            rows = rows[np.isfinite(targets[first[rows]]).all(axis=1)]
            if not len(rows):
                raise ValueError(
                    f"The {name} part has no complete example; an example needs "
                    f"{(form.window or 0) + (ahead or 1)} rows. Received: rows {start + 1} to "
                    f"{stop} of file={table.file!r}, window={form.window}, horizon={form.horizon}"
                )
            answers = targets[first[rows]]
            answers = answers[:, 0].astype(np.int32) if form.classes else answers.astype(np.float32)
            found.append((inputs[rows], answers))
        return found


def _shares(evaluation: object, test: object) -> tuple[float, float]:
    shares = (
        number("evaluation_fraction", evaluation, "(0, 1)"),
        number("test_fraction", test, "(0, 1)"),
    )
    if sum(shares) >= 1:
        raise ValueError(
            "The validation and the test part must leave rows for training. Received: "
            f"evaluation_fraction={evaluation!r}, test_fraction={test!r}"
        )
    return shares


def _bounds(rows: int, shares: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Return the first row of each part and the row after its last one."""
    test = rows - round(rows * shares[1])
    validation = test - round(rows * shares[0])
    return (0, validation), (validation, test), (test, rows)


def _scaled(form: CsvFormat, table: Table, rows: int) -> CsvFormat:
    """Return the format with the scaling of the first `rows` rows."""

    def fit(names: Sequence[str]) -> Scaling:
        return Scaling.fit(table.numbers(names)[:rows], names)

    target = None if form.classes else fit([form.target])
    return dataclasses.replace(form, input_scaling=fit(form.inputs), target_scaling=target)


def _targets(form: CsvFormat, table: Table) -> np.ndarray:
    """Return the target of each row and the next ones, [rows, horizon] or [rows, 1].

    NaN where a value is missing or after the end of the file.
    """
    if form.target_scaling is None:
        places = {name: float(place) for place, name in enumerate(form.classes)}
        return np.array([[places.get(cell, np.nan)] for cell in table.columns[form.target]])
    values = form.target_scaling.apply(table.numbers([form.target]))[:, 0]
    if form.window is None:
        return values[:, None]
    behind = np.concatenate([values, np.full(form.horizon, np.nan)])
    return np.lib.stride_tricks.sliding_window_view(behind, form.horizon)


def _report(
    table: Table,
    form: CsvFormat,
    bounds: Sequence[tuple[int, int]],
    gaps: str,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> str:
    others = [name for name in table.columns if name not in (*form.inputs, form.target)]
    rows = ", ".join(
        f"{name} {start + 1:,} to {stop:,} ({len(part[0]):,} examples)"
        for name, (start, stop), part in zip(_PARTS, bounds, parts, strict=True)
    )
    kind = f" ({len(form.classes):,} classes)" if form.classes else ""
    read = f"{table.file}: {len(table):,} rows; target {form.target}{kind}; inputs "
    read += f"{', '.join(form.inputs)}; not used: {', '.join(others) or 'none'}"
    missing = f"{gaps}; their examples are left out" if gaps else "none"
    return f"{read}\nMissing values: {missing}\nRows: {rows}"
