"""Sink that is called in a background thread."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks.fault_tolerant import FaultTolerantSink
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window

# Seconds that `close` waits, and seconds after which a call that has not returned is reported.
CLOSE_TIMEOUT = 10.0
_REPORT_AFTER = 30.0
# Train steps per `write`. After an exception, `write` starts again at the call that raised.
_STEPS_PER_WRITE = 100


class BackgroundSink(FaultTolerantSink):
    """Fault-tolerant sink that is called in daemon threads, one at a time.

    The thread of the training never waits for the sink, except in `close`, at most `CLOSE_TIMEOUT`
    seconds. Steps that are recorded while a thread runs are taken from the history in memory when
    it has ended, so that no queue grows. A forked process does not call the sink.

    Args:
        sink, name, recent: see `FaultTolerantSink`.
    """

    def __init__(self, sink: Sink, name: str, recent: Callable[[int], Window]) -> None:
        super().__init__(sink, name, recent)
        self._takes_steps = type(sink).write is not Sink.write
        self._findings: deque[Finding] = deque()
        self._report_page: tuple[str, bytes] | None = None
        self._thread: _Thread | None = None
        # Steps of the window that the thread writes: all of them, and those not written yet.
        self._steps = self._unwritten = 0
        self._process = os.getpid()

    def open(self, is_running: Callable[[], bool]) -> None:
        self._process, self._has_reported = os.getpid(), False
        if self._is_idle():
            super().open(is_running)

    def truncate_from(self, step: int) -> Iterator[Window]:
        yield from ()

    def write(self, window: Window) -> None:
        if not self._takes_steps and not self._findings:
            return
        self._missing += len(window)
        if self._is_idle() and self._missing >= self._retry_at:
            self._run(self._write_pending)

    def write_finding(self, finding: Finding) -> None:
        self._findings.append(finding)

    def write_report(self, path: Path) -> None:
        self._report_page = path.name, path.read_bytes()

    def flush(self) -> None:
        """Do nothing, because the thread may be running."""

    def close(self) -> None:
        # A thread that an earlier `close` has waited for in vain is not waited for again.
        running = None if self._is_idle() else self._thread
        was_awaited = running is not None and running.was_awaited
        deadline = time.monotonic() + (0.0 if was_awaited else CLOSE_TIMEOUT)
        if self._is_idle(deadline):
            self._run(self._finish)
            if self._is_idle(deadline):
                return
        if self._thread is not None and self._process == os.getpid():
            self._thread.was_awaited = True
            error = TimeoutError(f"no response within {CLOSE_TIMEOUT:g} s")
            self._report(error, "Steps or findings may be missing there; the history is complete.")

    def _run(self, action: Callable[[Window], None]) -> None:
        """Call `action` with the missing steps, in a thread."""
        window = self._recent(self._missing if self._takes_steps else 0)
        self._steps = self._unwritten = self._missing
        self._missing = 0
        thread = _Thread(lambda: action(window))
        if self._succeeds(thread.start):
            self._thread = thread
        else:  # too many threads, or the interpreter is shutting down
            self._missing = self._steps

    def _write_pending(self, window: Window) -> None:
        """Write the steps, then the findings."""
        for first in range(0, len(window), _STEPS_PER_WRITE):
            part = window[first : first + _STEPS_PER_WRITE]
            self._sink.write(part)
            self._unwritten -= len(part)
        self._unwritten = 0
        errors: list[Exception] = []
        for _ in range(len(self._findings)):
            try:
                self._sink.write_finding(self._findings[0])
            except Exception as error:  # noqa: BLE001 (a client may raise any exception)
                errors.append(error)
                self._findings.rotate(-1)  # one that always fails must not block the others
            else:
                self._findings.popleft()
        if errors:
            raise errors[0]

    def _finish(self, window: Window) -> None:
        try:
            self._write_pending(window)
            if self._report_page is not None:
                name, page = self._report_page
                with TemporaryDirectory() as folder:
                    path = Path(folder) / name
                    path.write_bytes(page)
                    self._sink.write_report(path)
        finally:
            self._report_page = None
            self._sink.close()

    def _is_idle(self, deadline: float = 0.0) -> bool:
        """Return False if a thread still runs at the deadline. Steps it did not write are missing.

        Also return False in a fork of the process.
        """
        if self._process != os.getpid():
            return False
        if self._thread is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            seconds = time.monotonic() - self._thread.started
            if seconds > _REPORT_AFTER:
                self._report(TimeoutError(f"no response for {seconds:.0f} s"))
            return False
        error, self._thread = self._thread.error, None
        self._retry_at = 0 if error is None else 2 * (self._unwritten or self._steps)
        self._missing += self._unwritten
        self._unwritten = 0
        if error is not None:
            self._report(error)
        return True


class _Thread(threading.Thread):
    """Daemon thread, which does not keep the process alive.

    Attributes:
        error: what `action` raised; None if it returned.
        started: `time.monotonic()` at the creation.
        was_awaited: True if `close` has waited for the thread.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__(name="gradkeeper-sink", daemon=True)
        self._action = action
        self.error: BaseException | None = None
        self.started = time.monotonic()
        self.was_awaited = False

    def run(self) -> None:
        try:
            self._action()
        except BaseException as error:  # noqa: BLE001 (a client may raise any exception)
            self.error = error
