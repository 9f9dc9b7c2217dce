"""The right to write to a folder, which one training at a time has."""

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

# Readers of Parquet folders pass over names that begin with "_".
_LOCK = "_gradients.lock"
_FORMER_LOCK = "gradients.lock"
# Of a process on another host it can only be known when it last wrote.
_SILENT_SECONDS = 120


@dataclass(frozen=True)
class Holder:
    """Who has a folder, as its lock file says.

    Attributes:
        pid: the process; 0 if the file cannot be read.
        host: where it runs.
        born: when it began, as its system counts; "" where that cannot be asked.
        token: tells apart the claims of a process, and of processes of the same number.
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
        """Who the lock file names; None if there is no such file."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # being written, or by a process killed while writing
            return cls()

    @property
    def is_here(self) -> bool:
        """Whether that is a process of this host that can be asked after."""
        # On Windows signal 0 would not ask but kill.
        return self.host == socket.gethostname() and (self._is_mine or os.name != "nt")

    @property
    def _is_mine(self) -> bool:
        return self.pid == os.getpid()

    def is_at_work(self, path: Path) -> bool:
        """Whether it still trains, as far as can be known.

        Args:
            path: the lock file, touched at every write.
        """
        if not self.is_here:
            return time.time() - path.stat().st_mtime < _SILENT_SECONDS
        if self._is_mine:
            claim = _CLAIMS.get(self.token)
            return claim is not None and claim.is_running()
        return _is_alive(self.pid) and _birth(self.pid) == self.born

    def __str__(self) -> str:
        own = "another GradientMonitor of this process, " if self.is_here and self._is_mine else ""
        return f"{own}process {self.pid} on host {self.host!r}"


class FolderClaim:
    """Has one training at a time write to a folder, by a lock file that names its process.

    A process that is gone holds nothing: its lock is taken over. A claim that is let go of
    without `release` ends with the object, or with the process that ends by itself.

    Args:
        folder: the folder; made by `take` if it is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._path = self._folder / _LOCK
        self._holder: Holder | None = None
        self._lost_to: Holder | None = None
        self._give_back: weakref.finalize | None = None
        self.is_running: Callable[[], bool] = bool

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or what is unpickled elsewhere, holds nothing.
        return vars(FolderClaim(self._folder))

    def take(self, is_running: Callable[[], bool]) -> None:
        """Takes the folder, or keeps it.

        Args:
            is_running: whether the training that it is taken for still runs; asked when
                another training of this process wants the folder.

        Raises:
            RuntimeError: if another training has it.
            OSError: if the lock cannot be written.
        """
        self._lost_to = None
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._is_held_by(Holder.read(self._path)):
            self._take()
        self.is_running = is_running

    def keep(self) -> None:
        """Makes sure of the folder before it is written to.

        Raises:
            RuntimeError: if another training has it.
            OSError: if the lock is gone and cannot be written again.
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
        """Lets another training have the folder."""
        self._holder = None
        if self._give_back is not None:
            self._give_back()

    def _is_held_by(self, there: Holder | None) -> bool:
        """Whether this claim is the holder; not so in a fork of the process that took it."""
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
            # Of two that take over at once the last is named; the other learns it by `keep`.
            mine = self._path.with_name(f".{_LOCK}.{holder.token}.tmp")
            _write(mine, holder)
            os.replace(mine, self._path)
        self._holder = holder
        _CLAIMS[holder.token] = self
        self._give_back = weakref.finalize(self, _give_back, self._path, holder)

    def _remove_former_lock(self) -> None:
        """Removes the lock of a version that wrote it under another name, unless it still trains.

        Raises:
            RuntimeError: if it does.
        """
        path = self._folder / _FORMER_LOCK
        there = Holder.read(path)
        if there is not None and there.is_at_work(path):
            raise RuntimeError(self._refusal(there, _FORMER_LOCK))
        path.unlink(missing_ok=True)

    def _refusal(self, holder: Holder, lock: str = _LOCK) -> str:
        return (
            f"Another training writes its gradient history to this folder: {holder}. Give each "
            f"run a folder of its own; if that training is over, close() its monitor or delete "
            f"{lock} there. Received: log_dir={str(self._folder)!r}"
        )


# Only weakly, and only so that the lock file's token leads to the training that is meant.
_CLAIMS: weakref.WeakValueDictionary[str, FolderClaim] = weakref.WeakValueDictionary()


def _write(path: Path, holder: Holder) -> None:
    """Makes the file; raises FileExistsError if it is there."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
        try:
            json.dump(asdict(holder), file)
            file.flush()
        except BaseException:
            path.unlink()
            raise


def _give_back(path: Path, holder: Holder) -> None:
    """Removes the lock, if it is this holder's and it is this process that took it."""
    with suppress(OSError):  # a lock that stays is taken over once the process is gone
        if holder.pid == os.getpid() and Holder.read(path) == holder:
            path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _birth(pid: int) -> str:
    """When the process began, in ticks of the system; "" if unknown, or if it is dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]
