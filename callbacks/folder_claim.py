"""Directory lock: only one run at a time writes to a directory."""

import json
import os
import socket
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Readers of Parquet directories ignore names that begin with "_".
_LOCK = "_gradients.lock"
_FORMER_LOCK = "gradients.lock"
# For a process on another host, only the time of its last write is known.
_SILENT_SECONDS = 120


@dataclass(frozen=True)
class Holder:
    """Lock owner: the process that is named in the lock file of a directory.

    Attributes:
        pid: process id; 0 if the file cannot be read.
        host: name of the host that runs the process.
        born: start time of the process, in ticks of its system; "" if unknown.
        token: unique id that distinguishes the locks of one process, and processes that reuse
            a process id.
    """

    pid: int = 0
    host: str = "?"
    born: str = ""
    token: str = ""

    @classmethod
    def this_process(cls) -> "Holder":
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _birth(pid), uuid.uuid4().hex)

    @classmethod
    def read(cls, path: Path) -> "Holder | None":
        """Read the lock owner from a lock file; None if the file does not exist."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # half-written: the writer is still active or was killed
            return cls()

    @property
    def is_here(self) -> bool:
        """True if the process runs on this host and its state can be queried."""
        # On Windows, signal 0 kills the process instead of testing it.
        return self.host == socket.gethostname() and (self._is_mine or os.name != "nt")

    @property
    def _is_mine(self) -> bool:
        return self.pid == os.getpid()

    def is_at_work(self, path: Path) -> bool:
        """Return True if the lock owner appears to be still training.

        Args:
            path: the lock file, whose modification time is updated at every write.
        """
        if not self.is_here:
            return time.time() - path.stat().st_mtime < _SILENT_SECONDS
        if self._is_mine:
            claim = _CLAIMS.get(self.token)
            return claim is not None and claim.is_running()
        return _is_alive(self.pid) and _birth(self.pid) == self.born

    def __str__(self) -> str:
        own = "another GradientMonitor in this process, " if self.is_here and self._is_mine else ""
        return f"{own}process {self.pid} on host {self.host!r}"


class FolderClaim:
    """Directory lock, held by means of a lock file that names the process.

    The lock of a dead process is taken over. Without `release`, the lock is released when the
    object is garbage-collected or the process exits normally.

    Args:
        folder: the directory; `take` creates it if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._path = self._folder / _LOCK
        self._holder: Holder | None = None
        self._lost_to: Holder | None = None
        self._give_back: weakref.finalize | None = None
        self.is_running: Callable[[], bool] = bool

    def __getstate__(self) -> dict[str, Any]:
        # A copied or unpickled object must not hold the lock.
        return vars(FolderClaim(self._folder))

    def take(self, is_running: Callable[[], bool]) -> None:
        """Acquire the lock, or keep it if it is already held.

        Args:
            is_running: returns True while the run of this lock is active. Called when another
                run of this process requests the directory.

        Raises:
            RuntimeError: if another run holds the lock.
            OSError: if the lock cannot be written.
        """
        self._lost_to = None
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._is_held_by(Holder.read(self._path)):
            self._take()
        self.is_running = is_running

    def keep(self) -> None:
        """Refresh the lock. Call this before each write to the directory.

        Raises:
            RuntimeError: if another run holds the lock.
            OSError: if the lock file is missing and cannot be written again.
        """
        there = Holder.read(self._path)
        if self._is_held_by(there):
            os.utime(self._path)
        elif self._lost_to is None and there is not None and self._holder is not None:
            self._lost_to, self._holder = there, None
        elif self._lost_to is None:
            self._take()
        if self._lost_to is not None:
            raise RuntimeError(self._refusal(self._lost_to))

    def release(self) -> None:
        """Release the lock."""
        self._holder = None
        if self._give_back is not None:
            self._give_back()

    def _is_held_by(self, there: Holder | None) -> bool:
        """Return True if this object holds the lock; False in a fork of the process that does."""
        return there is not None and there == self._holder and there.pid == os.getpid()

    def _take(self) -> None:
        self._remove_former_lock()
        holder = Holder.this_process()
        try:
            _write(self._path, holder)
        except FileExistsError:
            there = Holder.read(self._path)
            if there is not None and there.is_at_work(self._path):
                raise RuntimeError(self._refusal(there)) from None
            # If two processes take over at once, the last write wins; `keep` raises in the other one.
            mine = self._path.with_name(f".{_LOCK}.{holder.token}.tmp")
            _write(mine, holder)
            os.replace(mine, self._path)
        self._holder = holder
        _CLAIMS[holder.token] = self
        self._give_back = weakref.finalize(self, _give_back, self._path, holder)

    def _remove_former_lock(self) -> None:
        """Remove a lock file with the name that earlier versions used.

        Raises:
            RuntimeError: if the run that holds this lock is active.
        """
        path = self._folder / _FORMER_LOCK
        there = Holder.read(path)
        if there is not None and there.is_at_work(path):
            raise RuntimeError(self._refusal(there, _FORMER_LOCK))
        path.unlink(missing_ok=True)

    def _refusal(self, holder: Holder, lock: str = _LOCK) -> str:
        return (
            f"Another run writes its gradient history to this directory: {holder}. Use a separate "
            f"directory for each run. If the other run has ended, call close() on its monitor or "
            f"delete {lock} from the directory. Received: log_dir={str(self._folder)!r}"
        )


# Maps the token in a lock file to the lock object of this process. Weak references, so that an
# unused lock is garbage-collected and released.
_CLAIMS: weakref.WeakValueDictionary[str, FolderClaim] = weakref.WeakValueDictionary()


def _write(path: Path, holder: Holder) -> None:
    """Write a lock file; raise FileExistsError if it exists."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
        try:
            json.dump(asdict(holder), file)
            file.flush()
        except BaseException:
            path.unlink()
            raise


def _give_back(path: Path, holder: Holder) -> None:
    """Remove the lock file if it names `holder` and `holder` is this process."""
    with suppress(OSError):  # a remaining lock is taken over after the process has ended
        if holder.pid == os.getpid() and Holder.read(path) == holder:
            path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # process of another user
        return True
    return True


def _birth(pid: int) -> str:
    """Return the start time of a process in system ticks; "" if unknown or dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]
