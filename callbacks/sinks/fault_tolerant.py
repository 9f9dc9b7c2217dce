"""Sink whose exceptions do not stop training."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gradkeeper.callbacks._text import print_failure
from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks.sink import DirectoryLock, Sink
from gradkeeper.callbacks.window import Histogram, Window

_CONSEQUENCE = (
    "Training and the history in memory continue. Writing is retried periodically and at the end "
    "of training."
)


class FaultTolerantSink(Sink):
    """Sink whose exceptions do not stop training.

    The first exception of a run is printed. Steps that were not written are taken from the history
    in memory and written again: each time their number has doubled, and at the end of the run.
    Histograms, findings and reports are not written again.

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
        """Acquire the directory lock and start the sink, at the start of a run.

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
        self._succeeds(self._sink.start)

    @property
    def takes_report(self) -> bool:
        """True if the sink defines `write_report`."""
        return type(self._sink).write_report is not Sink.write_report

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

    def write_finding(self, finding: Finding) -> None:
        self._succeeds(lambda: self._sink.write_finding(finding))

    def write_report(self, path: Path) -> None:
        self._succeeds(lambda: self._sink.write_report(path))

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

    def _succeeds(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            self._report(error)
            return False
        return True

    def _report(self, error: BaseException, consequence: str = _CONSEQUENCE) -> None:
        if not self._has_reported:
            self._has_reported = True
            print_failure(self._name, error, consequence)
