"""The train steps of a run, read from one recorder after another."""

import dataclasses

from gradkeeper.callbacks.loop_steps import LoopSteps
from gradkeeper.callbacks.tap import Owner, Readout, Recorder
from gradkeeper.callbacks.window import Window


class StepStream:
    """Numbers the recorded train steps through, over all fits of a monitor.

    Attributes:
        recorder: what is read from; None before the first step.
        next_step: the train step that comes next; None before the first step.
    """

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.next_step: int | None = None
        self._offset = 0
        self._loop: LoopSteps | None = None
        self._has_ended = False

    def follow(self, recorder: Recorder, *, loop: LoopSteps | None = None) -> None:
        """Reads from this recorder from now on; its next step follows on the last.

        Args:
            recorder: the recorder.
            loop: puts the recorder's rows together, where it watches several optimizers of a loop.
        """
        self.recorder = recorder
        self._loop, self._has_ended = loop, False
        self._offset = (self.next_step or 0) - (recorder.wait() if loop is None else loop.steps)

    def end_loop(self) -> None:
        """The watched loop has ended: its last step is complete."""
        self._has_ended = True

    def leave(self) -> None:
        """Lets go of the recorder, and with it of the model's variables."""
        self.recorder = None

    def read(self, owner: Owner) -> Readout | None:
        """What was recorded since the last call, steps counted from the run's first.

        Args:
            owner: who reads; a recorder that another has claimed is left alone.
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
