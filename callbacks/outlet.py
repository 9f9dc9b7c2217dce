"""What stands between a training and a sink that may fail."""

from collections.abc import Callable, Iterator

from gradkeeper.callbacks.fault import tell_fault
from gradkeeper.callbacks.folder_claim import FolderClaim
from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.sinks import Sink
from gradkeeper.callbacks.tap import Readout
from gradkeeper.callbacks.window import Window

_CONSEQUENCE = (
    "Training goes on, and so does the history in memory; steps that the sink lacks are "
    "handed to it again from time to time and at the end of the training."
)


class Outlet:
    """Hands recorded steps to a sink, none of whose exceptions reaches the training.

    The first exception of a training is told. Steps that the sink did not take are handed to
    it again, as far as the history in memory holds them: when as many again have come, and at
    the end. Histograms are not.

    Args:
        sink: where the steps go.
        name: the monitor's argument that asked for the sink, for messages.
        history: what is recorded.
        claim: the right to write there; None if several trainings may.
    """

    def __init__(
        self, sink: Sink, name: str, history: GradientHistory, claim: FolderClaim | None = None
    ) -> None:
        self._sink, self._name = sink, f"the {type(sink).__name__} of {name}"
        self._history, self._claim = history, claim
        self._told = False
        # The step whose `keep_before` failed; the first row that the sink lacks, and at how
        # many of them it is tried again.
        self._unclean: int | None = None
        self._lacks: int | None = None
        self._enough = 0

    def open(self, is_running: Callable[[], bool]) -> None:
        """A training begins.

        Args:
            is_running: see `FolderClaim.take`.

        Raises:
            RuntimeError: if another training writes there.
        """
        self._told = False
        if self._claim is not None:
            try:
                self._claim.take(is_running)
            except OSError as error:
                self._tell(error)

    def take_up(self, step: int) -> Iterator[Window]:
        """The windows of the steps before this one that the sink holds; it drops the others."""
        self._unclean = step
        try:
            self._ensure_claim()
            yield from self._sink.keep_before(step)
            self._unclean = None
        except Exception as error:  # noqa: BLE001 (disks and libraries raise what they like)
            self._tell(error)

    def write(self, readout: Readout, row: int) -> None:
        """Hands on what was read; in the history it begins at this row."""
        if self._lacks is None:
            if self._unclean is None and self._succeeds(lambda: self._write(readout)):
                return
            self._lacks, self._enough = row, 2 * len(readout.window)
        elif row + len(readout.window) >= self._lacks + self._enough:
            self._enough = 2 * (row + len(readout.window) - self._lacks)
            self._catch_up()

    def flush(self) -> None:
        """Has the sink hold what it took."""
        if self._lacks is None:
            self._succeeds(self._sink.flush)

    def close(self) -> None:
        """The training is at its end; lets go of the files and of the folder."""
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
        except Exception as error:  # noqa: BLE001 (the same)
            self._tell(error)
            return False
        return True

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            tell_fault(self._name, error, _CONSEQUENCE)
