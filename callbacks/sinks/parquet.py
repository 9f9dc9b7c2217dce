"""Gradient statistics in a directory of Parquet parts, readable during training."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gradkeeper.callbacks.sinks._parts import is_whole, read_part, steps_of, write_part
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window

_PART = re.compile(r"gradients-(\d{6,})\.parquet")
# Number of small parts that are merged into one, so that a reader opens few files.
_MANY = 20


class ParquetSink(Sink):
    """Sink that writes `gradients-000000.parquet`, `gradients-000001.parquet`, ... to `log_dir`.

    Each window becomes a part immediately, so a killed process loses no written window. Small
    parts are merged from time to time. A part is written under a temporary name and renamed, so a
    reader finds complete parts only. A process killed during a merge leaves duplicate steps, and
    a power failure may leave a truncated part; `read_parts` skips both.

    Args:
        log_dir: directory; created if it does not exist.
        rows_per_part: number of train steps below which a part is small.
    """

    def __init__(self, log_dir: str | Path, *, rows_per_part: int = 1000) -> None:
        self._folder = Path(log_dir)
        self._rows_per_part = rows_per_part
        self._small: list[Path] = []
        self._next: int | None = None
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, window: Window) -> None:
        """Write the window as one part; the part is in the directory on return."""
        if not len(window):
            return
        number = self._look() if self._next is None else self._next
        self._next = None  # after a failed write the next call lists the directory again
        path = self._folder / f"gradients-{number:06d}.parquet"
        write_part(path, window)
        self._small = [*self._small, path] if len(window) < self._rows_per_part else []
        if len(self._small) >= _MANY:
            self._merge()
        self._next = number + 1

    def close(self) -> None:
        """Release the directory: another sink may write to it before the next `write`."""
        self._next = None

    def keep_before(self, step: int) -> Iterable[Window]:
        """Remove the rows from `step` on, because a resumed run records them again.

        Returns:
            The remaining windows, read lazily.
        """
        for unfinished in self._folder.glob(".gradients-*.parquet.tmp"):
            unfinished.unlink()
        seen = _Seen()
        for path in _named(self._folder):
            steps = steps_of(path) if is_whole(path) else np.zeros(0, np.int64)
            kept = seen.fresh(steps) & (steps < step)
            if not kept.any():
                path.unlink()
            elif not kept.all():
                write_part(path, read_part(path)[kept])
        self._next = None
        return map(read_part, _parts(self._folder))

    def _look(self) -> int:
        """Find the small parts at the end of the directory and return the next part number."""
        self._small, number = [], 0
        for path in _parts(self._folder):
            small = pq.read_metadata(path).num_rows < self._rows_per_part
            self._small = [*self._small, path] if small else []
            number = _number(path) + 1
        return number

    def _merge(self) -> None:
        """Merge the small parts at the end into the first of them."""
        first, *others = self._small
        merged = Window.concatenate([read_part(path) for path in self._small])
        _, once = np.unique(merged.steps, return_index=True)
        write_part(first, merged[np.sort(once)])
        for path in others:
            path.unlink()
        self._small = [first] if len(once) < self._rows_per_part else []


def read_parts(log_dir: str | Path) -> Iterator[Window]:
    """Yield the windows in the directory, oldest first, without duplicate steps."""
    seen, paths = _Seen(), _parts(Path(log_dir))
    while paths:
        try:
            window = read_part(paths.pop(0))
        except FileNotFoundError:
            # A run in progress has merged the part. `seen` skips the steps that were read.
            paths = _parts(Path(log_dir))
            continue
        fresh = seen.fresh(window.steps)
        if fresh.any():
            yield window if fresh.all() else window[fresh]


class _Seen:
    """Set of the train steps that were read."""

    def __init__(self) -> None:
        self._steps: list[np.ndarray] = []
        self._last = -1

    def fresh(self, steps: np.ndarray) -> np.ndarray:
        """Add steps and return which of them were not in the set, bool [steps]."""
        again = steps <= self._last
        if again.any():
            again = np.isin(steps, np.concatenate(self._steps))
        self._steps.append(steps)
        self._last = max(self._last, int(steps.max(initial=-1)))
        return ~again


def _parts(folder: Path) -> list[Path]:
    """Return the complete parts in the directory, by number."""
    return list(filter(is_whole, _named(folder)))


def _named(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*.parquet") if _PART.fullmatch(p.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("gradients-"))
