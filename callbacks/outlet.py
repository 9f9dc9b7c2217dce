"""Fault-tolerant wrapper of a sink."""

from collections.abc import Callable, Iterator

from gradkeeper.callbacks.fault import tell_fault
from gradkeeper.callbacks.folder_claim import FolderClaim
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.sinks import Sink
from gradkeeper.callbacks.tap import Readout
from gradkeeper.callbacks.window import Window

_CONSEQUENCE = (
    "Training and the history in memory continue. Writing the missing steps is retried "
    "periodically and at the end of training."
)


class Outlet:
    """Fault-tolerant sink: exceptions of the wrapped sink do not stop training.

    The first exception of a run is printed. Steps that were not written are taken from the history
    in memory and written again: each time their number has doubled, and at the end of the run.
    Histograms are not written again.

    Args:
        sink: the sink to wrap.
        name: the argument of the monitor that requested the sink, for messages.
        history: the history of all recorded steps.
        claim: the directory lock; None if several runs may write to the directory.
    """

    def __init__(
        self, sink: Sink, name: str, history: GradientHistory, claim: FolderClaim | None = None
    ) -> None:
        self._sink, self._name = sink, f"the {type(sink).__name__} of {name}"
        self._history, self._claim = history, claim
        self._told = False
        # The step for which `keep_before` failed, the first row missing in the sink, and the
        # number of missing rows at which to retry.
        self._unclean: int | None = None
        self._lacks: int | None = None
        self._enough = 0

    def open(self, is_running: Callable[[], bool]) -> None:
        """Acquire the directory lock at the start of a run.

        Args:
            is_running: see `FolderClaim.take`.

        Raises:
            RuntimeError: if another run holds the lock.
        """
        self._told = False
        if self._claim is not None:
            try:
                self._claim.take(is_running)
            except OSError as error:
                self._tell(error)

    def take_up(self, step: int) -> Iterator[Window]:
        """Yield the stored steps before `step`, and delete the others from the sink."""
        self._unclean = step
        try:
            self._ensure_claim()
            yield from self._sink.keep_before(step)
            self._unclean = None
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            self._tell(error)

    def write(self, readout: Readout, row: int) -> None:
        """Write records to the sink. `row` is their first row in the history."""
        if self._lacks is None:
            if self._unclean is None and self._succeeds(lambda: self._write(readout)):
                return
            self._lacks, self._enough = row, 2 * len(readout.window)
        elif row + len(readout.window) >= self._lacks + self._enough:
            self._enough = 2 * (row + len(readout.window) - self._lacks)
            self._catch_up()

    def flush(self) -> None:
        """Flush the sink if no steps are missing in it."""
        if self._lacks is None:
            self._succeeds(self._sink.flush)

    def close(self) -> None:
        """Write missing steps, close the sink and release the directory lock."""
        try:
            if self._lacks is not None:
                self._catch_up()
            self._succeeds(self._sink.close)
        finally:
            if self._claim is not None:
                self._claim.release()

    def _write(self, readout: Readout) -> None:
        self._ensure_claim()
        self._sink.write(readout.window)
        for step, histograms in readout.histograms.items():
            self._sink.write_histograms(step, histograms)

    def _catch_up(self) -> None:
        if self._succeeds(self._write_lacking):
            self._lacks = None

    def _write_lacking(self) -> None:
        self._ensure_claim()
        if self._unclean is not None:
            self._sink.keep_before(self._unclean)
            self._unclean = None
        assert self._lacks is not None
        self._sink.write(self._history.since(self._lacks))

    def _ensure_claim(self) -> None:
        if self._claim is not None:
            self._claim.keep()

    def _succeeds(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (disks and libraries may raise any exception)
            self._tell(error)
            return False
        return True

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            tell_fault(self._name, error, _CONSEQUENCE)
