"""The sinks of a monitor, whose errors do not stop training."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gradkeeper.callbacks._text import print_failure
from gradkeeper.callbacks._workers import Worker, folders_of_others
from gradkeeper.callbacks.sinks.parquet import ParquetSink
from gradkeeper.callbacks.sinks.sink import DirectoryLock, Sink
from gradkeeper.callbacks.sinks.tensorboard import TensorBoardSink
from gradkeeper.callbacks.window import Histogram, Window

_CONSEQUENCE = (
    "Training and the history in memory continue. Writing the missing steps is retried "
    "periodically and at the end of training."
)


class FaultTolerantSink(Sink):
    """Sink whose exceptions do not stop training.

    The first exception of a run is printed. Steps that were not written are taken from the history
    in memory and written again: each time their number has doubled, and at the end of the run.
    Histograms are not written again.

    Args:
        sink: the sink to wrap.
        name: the argument of the monitor that requested the sink, for messages.
        recent: returns the latest recorded steps of this number, from the history.
        lock: the directory lock; None if several runs may write to the directory.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        recent: Callable[[int], Window],
        lock: DirectoryLock | None = None,
    ) -> None:
        self._sink, self._name = sink, f"the {type(sink).__name__} of {name}"
        self._recent, self._lock = recent, lock
        self._has_reported = False
        # The step for which `truncate_from` failed, the number of steps missing in the sink, and
        # the number at which to retry.
        self._truncate_at: int | None = None
        self._missing = self._retry_at = 0

    def open(self, is_running: Callable[[], bool]) -> None:
        """Acquire the directory lock at the start of a run.

        Args:
            is_running: see `DirectoryLock.acquire`.

        Raises:
            RuntimeError: if another run holds the lock.
        """
        self._has_reported = False
        if self._lock is not None:
            try:
                self._lock.acquire(is_running)
            except OSError as error:
                self._report(error)

    def truncate_from(self, step: int) -> Iterator[Window]:
        self._truncate_at = step
        try:
            yield from self._truncate(step)
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            self._report(error)

    def write(self, window: Window) -> None:
        is_ready = not self._missing and self._truncate_at is None
        if is_ready and self._succeeds(lambda: self._write(window)):
            return
        self._missing += len(window)
        if self._missing == len(window):
            self._retry_at = 2 * self._missing
        elif self._missing >= self._retry_at:
            self._retry_at = 2 * self._missing
            self._write_missing()

    def write_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        if not self._missing:
            self._succeeds(lambda: self._sink.write_histograms(step, histograms))

    def flush(self) -> None:
        if not self._missing:
            self._succeeds(self._sink.flush)

    def close(self) -> None:
        try:
            if self._missing:
                self._write_missing()
            self._succeeds(self._sink.close)
        finally:
            if self._lock is not None:
                self._lock.release()

    def _truncate(self, step: int) -> Iterator[Window]:
        self._refresh_lock()
        yield from self._sink.truncate_from(step)
        self._truncate_at = None

    def _write(self, window: Window) -> None:
        self._refresh_lock()
        self._sink.write(window)

    def _write_missing(self) -> None:
        def write() -> None:
            if self._truncate_at is not None:
                deque(self._truncate(self._truncate_at), maxlen=0)
            self._write(self._recent(self._missing))

        if self._succeeds(write):
            self._missing = 0

    def _refresh_lock(self) -> None:
        if self._lock is not None:
            self._lock.refresh()

    def _succeeds(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            self._report(error)
            return False
        return True

    def _report(self, error: Exception) -> None:
        if not self._has_reported:
            self._has_reported = True
            print_failure(self._name, error, _CONSEQUENCE)


class MultiSink(Sink):
    """Write to several sinks. An exception of one sink stops neither training nor the others.

    Args:
        log_dir: directory for Parquet parts; None to write none.
        tensorboard_dir: directory for TensorBoard event files; None to write none.
        sinks: further sinks.
        recent: see `FaultTolerantSink`.

    Raises:
        OSError: if `log_dir` cannot be created.
    """

    def __init__(
        self,
        log_dir: str | Path | None,
        tensorboard_dir: str | Path | None,
        sinks: Sequence[Sink],
        recent: Callable[[int], Window],
    ) -> None:
        self._log_dir, self._tensorboard_dir = log_dir, tensorboard_dir
        self._given, self._recent = sinks, recent
        self._worker = Worker()
        self._sinks = list(self._create())

    def _create(self) -> Iterator[FaultTolerantSink]:
        """Yield the sinks of this worker."""
        if self._log_dir is not None:
            directory = self._worker.folder_in(self._log_dir)
            yield self._parquet(directory, DirectoryLock(directory))
        if self._tensorboard_dir is not None:
            # No lock: each run writes its own event files, so runs may share the directory.
            directory = self._worker.folder_in(self._tensorboard_dir)
            name = f"tensorboard_dir={str(directory)!r}"
            yield FaultTolerantSink(TensorBoardSink(directory), name, self._recent)
        for each in self._given:
            yield FaultTolerantSink(each, "sinks", self._recent)

    def _parquet(self, directory: Path, lock: DirectoryLock | None = None) -> FaultTolerantSink:
        name = f"log_dir={str(directory)!r}"
        return FaultTolerantSink(ParquetSink(directory), name, self._recent, lock)

    def open(self, is_running: Callable[[], bool], worker: Worker) -> None:
        """Open the sinks at the start of a run.

        Args:
            is_running: returns True while the run is active. Called when another run of this
                process requests `log_dir`.
            worker: the worker that this process is.

        Raises:
            RuntimeError: if another run writes to `log_dir`.
        """
        former, self._worker = self._worker, worker
        if worker.number != former.number:
            self._sinks = list(self._create())
        for sink in self._sinks:
            sink.open(is_running)

    def truncate_from(self, step: int) -> Iterator[Window]:
        for sink in self._sinks:
            yield from sink.truncate_from(step)
        if self._log_dir is None or not self._worker.is_chief:
            return
        # When resuming with fewer workers, truncate the logs of the missing ones.
        for number, directory in folders_of_others(str(self._log_dir)).items():
            if number >= self._worker.count:
                deque(self._parquet(directory).truncate_from(step), maxlen=0)

    def write(self, window: Window) -> None:
        for sink in self._sinks:
            sink.write(window)

    def write_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        for sink in self._sinks:
            sink.write_histograms(step, histograms)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
