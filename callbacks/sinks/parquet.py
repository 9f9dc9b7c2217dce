"""Gradient statistics as a folder of Parquet parts, readable at any moment."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gradkeeper.callbacks.sinks._parts import is_whole, read_part, steps_of, write_part
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window

_PART = re.compile(r"gradients-(\d{6,})\.parquet")
# So many small parts are merged into one: a reader opens a thousand files in seconds.
_MANY = 20


class ParquetSink(Sink):
    """Writes windows to `log_dir` as `gradients-000000.parquet`, `gradients-000001.parquet`, ...

    Every window becomes a part at once, so that a killed process loses no window that was
    written; small parts are merged from time to time. A part is written under a temporary
    name and renamed: what a reader finds is whole. A kill while parts are merged leaves
    steps twice, which `read_parts` passes over, as it does a part that lost its end with the
    machine's power.

    Args:
        log_dir: the folder; made if it is not there.
        rows_per_part: parts of fewer train steps are merged when many lie there.
    """

    def __init__(self, log_dir: str | Path, *, rows_per_part: int = 1000) -> None:
        self._folder = Path(log_dir)
        self._rows_per_part = rows_per_part
        self._small: list[Path] = []
        self._next: int | None = None
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, window: Window) -> None:
        """Writes the window as a part of its own; on return it is in the folder."""
        if not len(window):
            return
        number = self._look() if self._next is None else self._next
        self._next = None  # a write that fails leaves the folder to be looked at again
        path = self._folder / f"gradients-{number:06d}.parquet"
        write_part(path, window)
        self._small = [*self._small, path] if len(window) < self._rows_per_part else []
        if len(self._small) >= _MANY:
            self._merge()
        self._next = number + 1

    def close(self) -> None:
        """Another may write to the folder before this sink does again."""
        self._next = None

    def keep_before(self, step: int) -> Iterable[Window]:
        """Drops what the folder holds from `step` on, as a resumed run records it again.

        Returns:
            The windows that stay, each read when it is asked for.
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
        """Finds the small parts at the end of the folder; returns the next part's number."""
        self._small, number = [], 0
        for path in _parts(self._folder):
            small = pq.read_metadata(path).num_rows < self._rows_per_part
            self._small = [*self._small, path] if small else []
            number = _number(path) + 1
        return number

    def _merge(self) -> None:
        """Puts the small parts at the end into the first of them."""
        first, *others = self._small
        merged = Window.concatenate([read_part(path) for path in self._small])
        _, once = np.unique(merged.steps, return_index=True)
        write_part(first, merged[np.sort(once)])
        for path in others:
            path.unlink()
        self._small = [first] if len(once) < self._rows_per_part else []


def read_parts(log_dir: str | Path) -> Iterator[Window]:
    """The windows in the folder, oldest first; a step that occurs again is left out."""
    seen, paths = _Seen(), _parts(Path(log_dir))
    while paths:
        try:
            window = read_part(paths.pop(0))
        except FileNotFoundError:
            # A run that goes on has merged it; what was read before is seen, not read twice.
            paths = _parts(Path(log_dir))
            continue
        fresh = seen.fresh(window.steps)
        if fresh.any():
            yield window if fresh.all() else window[fresh]


class _Seen:
    """The train steps that were read."""

    def __init__(self) -> None:
        self._steps: list[np.ndarray] = []
        self._last = -1

    def fresh(self, steps: np.ndarray) -> np.ndarray:
        """Which of the steps were not there before, bool [steps]; they are from now on."""
        again = steps <= self._last
        if again.any():
            again = np.isin(steps, np.concatenate(self._steps))
        self._steps.append(steps)
        self._last = max(self._last, int(steps.max(initial=-1)))
        return ~again


def _parts(folder: Path) -> list[Path]:
    """The whole parts in the folder, by number."""
    return list(filter(is_whole, _named(folder)))


def _named(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*.parquet") if _PART.fullmatch(p.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("gradients-"))
