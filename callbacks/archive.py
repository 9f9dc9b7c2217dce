"""Where the recorded train steps of a monitor are kept."""

from collections.abc import Callable
from pathlib import Path

from gradkeeper.callbacks.history import GradientHistory
from gradkeeper.callbacks.sinks import ParquetSink, Sink, TensorBoardSink
from gradkeeper.callbacks.tap import Readout
from gradkeeper.callbacks.tap.readout import Track


class Archive:
    """Histories in memory, of all and by optimizer, and files.

    Args:
        refresh: called before the history is read.
        log_dir: folder for Parquet parts; None for none.
        tensorboard_dir: folder for TensorBoard's event files; None for none.

    Attributes:
        history: all that was recorded.
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
        self._sinks: list[Sink] = []
        if log_dir is not None:
            self._sinks.append(ParquetSink(log_dir))
        if tensorboard_dir is not None:
            self._sinks.append(TensorBoardSink(tensorboard_dir))

    def take_up(self, step: int) -> None:
        """Takes up what the files hold of the train steps before this one; drops the others."""
        for sink in self._sinks:
            for window in sink.keep_before(step):
                self.history.append(window)

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
        self.history.append(readout.window)
        for sink in self._sinks:
            sink.write(readout.window)
            for step, histograms in readout.histograms.items():
                sink.write_histograms(step, histograms)

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
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """The same at the end of a training; another may follow."""
        for sink in self._sinks:
            sink.close()
