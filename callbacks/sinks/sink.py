"""Base class of the sinks, and the lock of a directory that a sink writes to."""

import errno
import os
import socket
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.window import Histogram, Window


class Sink:
    """Base class of sinks, which receive recorded train steps; a subclass must define `write`.

    If a sink raises, the monitor prints the exception and training continues. If `write` raises,
    the next call receives the same steps and the steps recorded since in one window.

    Attributes:
        in_background: True to call the sink in a background thread, where a slow or blocked
            connection does not delay training. The sink receives no histograms, and `flush` and
            `truncate_from` are not called. A finding for which `write_finding` raises is passed
            again. The sink may define `write_finding` only.
        chief_only: True to use the sink on the chief only, if there are several workers.
    """

    in_background = False
    chief_only = False

    def start(self) -> None:
        """Prepare for a run. Called at its start, always in the thread of the training."""

    def write(self, window: Window) -> None:
        """Write the window, whose steps follow those of the previous window."""
        raise NotImplementedError(
            f"A sink must define write(window). Received: {type(self).__name__}"
        )

    def write_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Write histograms of the step's gradient, by variable, as edges and counts.

        Edges are log10 of the magnitudes, float [bins + 1], ascending. Counts are numbers of
        elements, [bins]. The base class ignores histograms.
        """

    def write_finding(self, finding: Finding) -> None:
        """Write a finding, once per rule and layer, before the window in which it was found."""

    def write_report(self, path: Path) -> None:
        """Store the HTML report of a run, before `close`. The file is deleted afterwards."""

    def truncate_from(self, step: int) -> Iterable[Window]:
        """Remove the rows from `step` on, because a resumed run records them again.

        Returns:
            The remaining windows, oldest first; none if the sink cannot be read.
        """
        return []

    def flush(self) -> None:
        """Flush buffered data, so that it survives if the process is killed."""

    def close(self) -> None:
        """Flush and close the files. A later `write` opens them again."""
        self.flush()


# Readers of Parquet directories skip names that begin with "_".
_NAME = "_gradients.lock"


class DirectoryLock:
    """Allow one training at a time to write to a directory.

    The lock is a file in the directory that the operating system locks for this process. The
    system releases the lock of a process that ends, however it ends. Within a process, the lock
    of a training that has ended or raised is released when another training needs the directory.

    Args:
        directory: the directory. `acquire` creates it if it does not exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._path = self._directory / _NAME
        self._lock: FileLock | None = None
        self._process = self._inode = 0
        self.is_running: Callable[[], bool] = bool

    def __getstate__(self) -> dict[str, Any]:
        return vars(DirectoryLock(self._directory))  # a copy does not own the lock

    def acquire(self, is_running: Callable[[], bool]) -> None:
        """Acquire the lock, or keep it.

        Args:
            is_running: returns whether the training still runs. Called when another training of
                this process needs the directory.

        Raises:
            RuntimeError: if another training owns the lock.
            OSError: if the lock file cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self.refresh()
        self.is_running = is_running

    def refresh(self) -> None:
        """Make sure that this object owns the lock, before a write to the directory.

        Raises:
            RuntimeError: if another training owns the lock.
            OSError: if the directory does not exist, or the lock file cannot be written.
        """
        if self._is_owned:
            return
        self.release()
        other = _OWNERS.get(str(self._path.resolve()))
        if other is not None and not other.is_running():
            other.release()
        if not self._directory.is_dir():  # FileLock would create it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._directory))
        lock, owner = FileLock(self._path, thread_local=False), self._owner()
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise RuntimeError(
                f"Another run writes its gradient history to this directory: {owner}. Use a "
                "separate directory for each run, or call close() of the other monitor. "
                f"Received: log_dir={str(self._directory)!r}"
            ) from None
        self._path.write_text(f"process {os.getpid()} on host {socket.gethostname()!r}")
        self._lock, self._process = lock, os.getpid()
        self._inode = self._path.stat().st_ino
        _OWNERS[str(self._path.resolve())] = self

    def release(self) -> None:
        """Release the lock, if this object owns it."""
        if self._lock is None or self._process != os.getpid():
            return
        with suppress(OSError):  # Windows does not delete an open file
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._lock.release()
        self._lock = None

    @property
    def _is_owned(self) -> bool:
        """Return False in a fork of the process, and if the file was deleted or replaced."""
        if self._lock is None or self._process != os.getpid():
            return False
        with suppress(FileNotFoundError):
            return self._path.stat().st_ino == self._inode
        return False

    def _owner(self) -> str:
        """Return what the lock file says about its owner."""
        with suppress(OSError):
            return self._path.read_text() or "another process"
        return "another process"


# By path. A lock that is no longer referenced is released by its finalizer.
_OWNERS: "weakref.WeakValueDictionary[str, DirectoryLock]" = weakref.WeakValueDictionary()
