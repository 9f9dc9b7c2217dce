"""Reader of the rows that a running training adds to its Parquet parts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gradkeeper.callbacks.sinks.parquet import is_whole, read_part
from gradkeeper.callbacks.window import Window


class RowsReplacedError(Exception):
    """Rows that were read have been removed or changed: the run was resumed or replaced."""


class NewRows:
    """Iterator over the rows that were written since the last iteration.

    An iteration ends when all rows are read. A later iteration yields the rows written since. A run
    in progress adds parts and merges small ones. A resumed run removes the rows from its first step
    on, and records these steps again.

    Args:
        log_dir: directory of Parquet parts, which may not exist yet.

    Attributes:
        written: time of the last write, in seconds since the epoch; 0 without a part.

    Raises:
        RowsReplacedError: if rows that were read have been removed or changed. Create another
            reader.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self._folder = Path(log_dir)
        self._parts: dict[Path, tuple[tuple[int, ...], int]] = {}  # file state, last step
        self._steps: list[np.ndarray] = []
        self._norms: list[np.ndarray] = []
        self._last = -1
        self._pass = self._read_changed()
        self.written = 0.0

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        try:
            return next(self._pass)
        except StopIteration:
            self._pass = self._read_changed()
            raise

    def _read_changed(self) -> Iterator[Window]:
        """Yield the new rows of the parts that were written or changed since the last pass."""
        names = self._folder.glob("gradients-*.parquet")
        paths = sorted(names, key=lambda path: (len(path.name), path.name))
        for path in paths:
            try:
                window = self._read(path)
            except FileNotFoundError:
                return  # merged by the run; the next pass reads the merged part
            again = window.steps <= self._last
            if not self._are_known(window[again]):
                raise RowsReplacedError
            if not again.all():
                new = window[~again]
                self._steps.append(new.steps)
                self._norms.append(new.global_norm)
                self._last = int(new.steps[-1])
                yield new
        self._parts = {path: self._parts[path] for path in paths if path in self._parts}
        if max((last for _, last in self._parts.values()), default=-1) < self._last:
            raise RowsReplacedError

    def _read(self, path: Path) -> Window:
        """Return the rows of a part; none if the part has not changed, or is truncated."""
        stat = path.stat()
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._parts.get(path, ((), 0))[0] == state or not is_whole(path):
            return Window.concatenate([])
        window = read_part(path)
        self._parts[path] = state, int(window.steps[-1])
        self.written = max(self.written, stat.st_mtime)
        return window

    def _are_known(self, window: Window) -> bool:
        """Return whether these steps were read with the same norms."""
        if not len(window):
            return True
        steps, norms = np.concatenate(self._steps), np.concatenate(self._norms)
        rows = np.searchsorted(steps, window.steps)
        is_same = np.isclose(norms[rows], window.global_norm, equal_nan=True)
        return bool(np.all(is_same & (steps[rows] == window.steps)))
