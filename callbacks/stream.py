"""Continuous numbering of the train steps from successive recorders."""

import dataclasses

from gradkeeper.callbacks.loop_steps import LoopSteps
from gradkeeper.callbacks.tap import Owner, Readout, Recorder
from gradkeeper.callbacks.window import Window


class StepStream:
    """Step numbering over all `fit` calls of a monitor.

    Attributes:
        recorder: the current recorder; None before the first step.
        next_step: number of the next train step; None before the first step.
    """

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.next_step: int | None = None
        self._offset = 0
        self._loop: LoopSteps | None = None
        self._has_ended = False

    def follow(self, recorder: Recorder, *, loop: LoopSteps | None = None) -> None:
        """Switch to a recorder. Its next step gets the number `next_step`.

        Args:
            recorder: the recorder.
            loop: groups the rows of the recorder into train steps, for a custom loop with several
                optimizers.
        """
        self.recorder = recorder
        self._loop, self._has_ended = loop, False
        self._offset = (self.next_step or 0) - (recorder.wait() if loop is None else loop.steps)

    def end_loop(self) -> None:
        """Mark the custom loop as ended, which completes its last step."""
        self._has_ended = True

    def leave(self) -> None:
        """Release the recorder, which keeps the variables of the model alive."""
        self.recorder = None

    def read(self, owner: Owner) -> Readout | None:
        """Return the records since the last call, with continuous step numbers.

        Args:
            owner: the reader. If another owner has claimed the recorder, the result is None.
        """
        if self.recorder is None or not self.recorder.is_read_by(owner):
            return None
        taken = self.recorder.wait()
        readout = self.recorder.drain()
        if self._loop is not None:
            readout = self._loop.together(readout, is_last=self._has_ended)
            taken = self._loop.steps
        self.next_step = self._offset + taken
        if readout is None:
            return None
        tracks = {name: self._numbered(window) for name, window in readout.tracks.items()}
        window = self._numbered(readout.window)
        pictures = {step + self._offset: each for step, each in readout.histograms.items()}
        return Readout(window, tracks, readout.lost, pictures)

    def _numbered(self, window: Window) -> Window:
        calls = tuple(self._numbered(call) for call in window.calls)
        return dataclasses.replace(window, steps=window.steps + self._offset, calls=calls)
