"""Storage of recorded train steps: histories in memory and sinks."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from gradkeeper.callbacks.folder_claim import FolderClaim
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.outlet import Outlet
from gradkeeper.callbacks.sinks import ParquetSink, TensorBoardSink
from gradkeeper.callbacks.tap import Readout
from gradkeeper.callbacks.tap.readout import Track
from gradkeeper.callbacks.window import Window
from gradkeeper.callbacks.workers import Worker, folders_of_others


class Archive:
    """Histories in memory, for all optimizers together and for each one, and sinks.

    Args:
        refresh: called before each read of the history.
        log_dir: directory for Parquet parts; None to write none.
        tensorboard_dir: directory for TensorBoard event files; None to write none.

    Attributes:
        history: all recorded train steps.

    Raises:
        OSError: if `log_dir` cannot be created.
    """

    def __init__(
        self,
        refresh: Callable[[], None],
        log_dir: str | Path | None,
        tensorboard_dir: str | Path | None,
    ) -> None:
        self.history = GradientHistory(refresh=refresh)
        self._names: dict[str, None] = {}
        self._apart: dict[str, GradientHistory] = {}
        self._rows = 0
        self._log_dir, self._tensorboard_dir = log_dir, tensorboard_dir
        self._worker = Worker()
        self._outlets = list(self._made())

    def _made(self) -> Iterator[Outlet]:
        """Yield the fault-tolerant sinks of this worker."""
        if self._log_dir is not None:
            folder = self._worker.folder_in(self._log_dir)
            name, claim = f"log_dir={str(folder)!r}", FolderClaim(folder)
            yield Outlet(ParquetSink(folder), name, self.history, claim)
        if self._tensorboard_dir is not None:
            # No lock: each run writes separate event files, so several runs may share the directory.
            folder = self._worker.folder_in(self._tensorboard_dir)
            name = f"tensorboard_dir={str(folder)!r}"
            yield Outlet(TensorBoardSink(folder), name, self.history)

    def open(self, is_running: Callable[[], bool], worker: Worker | None = None) -> None:
        """Open the sinks at the start of a run.

        Args:
            is_running: returns True while the run is active. Called when another run of this
                process requests `log_dir`.
            worker: the worker that this process is; a single worker by default.

        Raises:
            RuntimeError: if another run writes to `log_dir`.
        """
        worker = worker or Worker()
        if worker.number != self._worker.number:
            self._worker = worker
            self._outlets = list(self._made())
        self._worker = worker
        for outlet in self._outlets:
            outlet.open(is_running)

    def take_up(self, step: int) -> None:
        """Load the steps before `step` from the files, and delete the others."""
        for outlet in self._outlets:
            for window in outlet.take_up(step):
                self._append(window)
        if self._log_dir is not None and self._worker.is_chief:
            self._drop_of_former_workers(step)

    def _drop_of_former_workers(self, step: int) -> None:
        """When resuming with fewer workers, truncate the logs of the missing ones."""
        for number, folder in folders_of_others(str(self._log_dir)).items():
            if number >= self._worker.count:
                former = Outlet(ParquetSink(folder), f"log_dir={str(folder)!r}", self.history)
                deque(former.take_up(step), maxlen=0)

    def add(self, readout: Readout, name: Callable[[Track], str]) -> None:
        """Append records to the histories and sinks. `name` returns the name of a track."""
        named = {name(track): window for track, window in readout.tracks.items()}
        before = list(self._names)
        self._names.update(dict.fromkeys(named))
        if len(self._names) > 1:
            # With a single optimizer so far, the history holds the steps of that optimizer.
            if len(before) == 1:
                self._track(before[0]).append(self.history.since(0))
            for each, window in named.items():
                self._track(each).append(window)
        row = self._rows
        self._append(readout.window)
        for outlet in self._outlets:
            outlet.write(readout, row)

    @property
    def tracks(self) -> dict[str, GradientHistory]:
        """History of each optimizer, by name."""
        return dict(self._apart) or dict.fromkeys(self._names, self.history)

    def _track(self, name: str) -> GradientHistory:
        if name not in self._apart:
            self._apart[name] = GradientHistory()
        return self._apart[name]

    def flush(self) -> None:
        """Write all appended steps to the files."""
        for outlet in self._outlets:
            outlet.flush()

    def close(self) -> None:
        """Write all appended steps and close the files. A later run may reopen them."""
        for outlet in self._outlets:
            outlet.close()

    def _append(self, window: Window) -> None:
        self._rows += len(window)
        self.history.append(window)
