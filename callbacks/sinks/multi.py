"""The sinks of a monitor, whose errors do not stop training."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gradkeeper.callbacks._workers import Worker, folders_of_others
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks.background import BackgroundSink
from gradkeeper.callbacks.sinks.fault_tolerant import FaultTolerantSink
from gradkeeper.callbacks.sinks.parquet import ParquetSink
from gradkeeper.callbacks.sinks.sink import DirectoryLock, Sink
from gradkeeper.callbacks.sinks.tensorboard import TensorBoardSink
from gradkeeper.callbacks.window import Histogram, Window


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
            if self._worker.is_chief or not each.chief_only:
                wrapper = BackgroundSink if each.in_background else FaultTolerantSink
                yield wrapper(each, "sinks", self._recent)

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
        source: Sink | None = None
        for sink in self._sinks:
            for window in sink.truncate_from(step):
                source = source or sink
                if sink is source:  # each readable sink has the same steps
                    yield window
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

    @property
    def takes_report(self) -> bool:
        """True if a sink of this worker defines `write_report`."""
        return any(each.takes_report for each in self._sinks)

    def write_finding(self, finding: Finding) -> None:
        for sink in self._sinks:
            sink.write_finding(finding)

    def write_report(self, path: Path) -> None:
        for sink in self._sinks:
            sink.write_report(path)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
