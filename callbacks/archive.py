"""Where the recorded train steps of a monitor are kept."""

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
    """Histories in memory, of all and by optimizer, and files.

    Args:
        refresh: called before the history is read.
        log_dir: folder for Parquet parts; None for none.
        tensorboard_dir: folder for TensorBoard's event files; None for none.

    Attributes:
        history: all that was recorded.

    Raises:
        OSError: if `log_dir` cannot be made.
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
        """The outlets of this worker."""
        if self._log_dir is not None:
            folder = self._worker.folder_in(self._log_dir)
            name, claim = f"log_dir={str(folder)!r}", FolderClaim(folder)
            yield Outlet(ParquetSink(folder), name, self.history, claim)
        if self._tensorboard_dir is not None:
            # Several trainings may write there: each has event files of its own.
            folder = self._worker.folder_in(self._tensorboard_dir)
            name = f"tensorboard_dir={str(folder)!r}"
            yield Outlet(TensorBoardSink(folder), name, self.history)

    def open(self, is_running: Callable[[], bool], worker: Worker | None = None) -> None:
        """A training begins.

        Args:
            is_running: whether it still runs; asked when another training of this process
                wants `log_dir`.
            worker: which worker of the training this process is; its only one by default.

        Raises:
            RuntimeError: if another training writes to `log_dir`.
        """
        worker = worker or Worker()
        if worker.number != self._worker.number:
            self._worker = worker
            self._outlets = list(self._made())
        self._worker = worker
        for outlet in self._outlets:
            outlet.open(is_running)

    def take_up(self, step: int) -> None:
        """Takes up what the files hold of the train steps before this one; drops the others."""
        for outlet in self._outlets:
            for window in outlet.take_up(step):
                self._append(window)
        if self._log_dir is not None and self._worker.is_chief:
            self._drop_of_former_workers(step)

    def _drop_of_former_workers(self, step: int) -> None:
        """Where fewer workers go on, the tracks of the others are to have the same end."""
        for number, folder in folders_of_others(str(self._log_dir)).items():
            if number >= self._worker.count:
                former = Outlet(ParquetSink(folder), f"log_dir={str(folder)!r}", self.history)
                deque(former.take_up(step), maxlen=0)

    def add(self, readout: Readout, name: Callable[[Track], str]) -> None:
        """Takes in what was read; `name` gives an optimizer's track its name."""
        named = {name(track): window for track, window in readout.tracks.items()}
        before = list(self._names)
        self._names.update(dict.fromkeys(named))
        if len(self._names) > 1:
            # The history was that of the only optimizer so far.
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
        """The history of each optimizer, by its name."""
        return dict(self._apart) or dict.fromkeys(self._names, self.history)

    def _track(self, name: str) -> GradientHistory:
        if name not in self._apart:
            self._apart[name] = GradientHistory()
        return self._apart[name]

    def flush(self) -> None:
        """Has the files hold all that was added."""
        for outlet in self._outlets:
            outlet.flush()

    def close(self) -> None:
        """The same at the end of a training; another may follow."""
        for outlet in self._outlets:
            outlet.close()

    def _append(self, window: Window) -> None:
        self._rows += len(window)
        self.history.append(window)
