"""Reading of the user's CSV files, and reports of missing values."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from os import PathLike

import numpy as np

from gradkeeper._arguments import choice
from gradkeeper.training.tasks.text.vocabulary import read_text

# Lower-case spellings of a missing value.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of a CSV file.

    Attributes:
        file: The file, as the user named it.
        columns: The cells of each column, without surrounding white space.
        lines: The line of the file in which each row ends.
    """

    file: str
    columns: dict[str, list[str]]
    lines: list[int]
    _numbers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, file: str | PathLike[str], *, delimiter: str = ",") -> "Table":
        """Read a UTF-8 file whose first line names the columns; skip empty lines.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not UTF-8, has no rows, names a column twice, or has a row
                with more or fewer cells than the first line.
        """
        delimiter = "\t" if delimiter == r"\t" else delimiter  # as written on a command line
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise ValueError(f"`delimiter` must be one character. Received: {delimiter!r}")
        reader = csv.reader(io.StringIO(read_text(file)), delimiter=delimiter)
        try:
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except csv.Error as error:
            raise ValueError(
                f"The file is not a CSV file: {error} (a quotation mark may be unbalanced). "
                f"Received: line {reader.line_num} of file={str(file)!r}"
            ) from None
        if len(rows) < 2:
            raise ValueError(
                "A CSV file must have a line with the column names, and at least one row. "
                f"Received: {len(rows)} line(s) in file={str(file)!r}"
            )
        names = rows[0][1]
        _require_names(names, file)
        for line, cells in rows:
            if len(cells) != len(names):
                raise ValueError(
                    f"Every row must have a cell for each of the {len(names)} columns. "
                    f"Received: {len(cells)} cells in line {line} of file={str(file)!r}, "
                    f"delimiter={delimiter!r}"
                )
        columns = zip(*(cells for _, cells in rows[1:]), strict=True)
        lines = [line for line, _ in rows[1:]]
        return cls(str(file), dict(zip(names, map(list, columns), strict=True)), lines)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def require(self, names: Sequence[str]) -> None:
        """Raise a ValueError for a column that the file lacks."""
        (first, *others) = self.columns
        other = next((each for each in ";\t|" if each in first), None)
        if not others and other and first not in names:
            raise ValueError(
                f"The file has one column, whose name contains {other!r}. If {other!r} separates "
                f"the columns, train with delimiter={other!r} (--option delimiter={other!r}). "
                f"Received: file={self.file!r}"
            )
        for name in names:
            try:
                choice("column", name, self.columns)
            except ValueError as error:
                raise ValueError(f"{error}, file={self.file!r}") from None

    def is_numeric(self, name: str) -> bool:
        """Return True if a column has a number and, except for missing values, only numbers."""
        try:
            return bool(np.isfinite(self.numbers([name])).any())
        except ValueError:
            return False

    def numeric(self, name: str) -> np.ndarray:
        """Return a bool array [rows], True where the cell of a column is a finite number."""
        return np.isfinite([_number(cell) for cell in self.columns[name]])

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Return the cells of some columns, float64 [rows, columns]; NaN for a missing value.

        Raises:
            ValueError: The file lacks a column, or a cell is not a number.
        """
        self.require(names)
        return np.stack([self._column(name) for name in names], axis=1)

    def missing(self, name: str) -> np.ndarray:
        """Return a bool array [rows], True where the column has no value."""
        return np.array([cell.lower() in MISSING for cell in self.columns[name]])

    def _column(self, name: str) -> np.ndarray:
        if name not in self._numbers:
            self._numbers[name] = self._read_column(name)
        return self._numbers[name]

    def _read_column(self, name: str) -> np.ndarray:
        gaps = self.missing(name)
        values = np.array([_number(cell) for cell in self.columns[name]])
        bad = np.flatnonzero(~np.isfinite(values) & ~gaps)
        if len(bad):
            raise ValueError(
                f"The column {name!r} must contain finite numbers. Received: "
                f"{self.columns[name][bad[0]]!r} in line {self.lines[bad[0]]} of "
                f"file={self.file!r}"
            )
        return values


def missing_report(missing: dict[str, np.ndarray], lines: Sequence[int]) -> str:
    """Describe how many values each column lacks, and the first line; "" if none is missing.

    Args:
        missing: For each column, bool [rows].
        lines: The line of each row.
    """
    return ", ".join(
        f"{gaps.sum():,} of {len(gaps):,} in {name!r} (first in line {lines[int(gaps.argmax())]:,})"
        for name, gaps in missing.items()
        if gaps.any()
    )


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _require_names(names: Sequence[str], file: str | PathLike[str]) -> None:
    if "" in names or len(set(names)) < len(names):
        raise ValueError(
            "The first line of a CSV file must name every column, each name once. "
            f"Received: {', '.join(map(repr, names))} in file={str(file)!r}"
        )
