"""Stream of the records of a monitor, over its fits and custom loops."""

import dataclasses

import numpy as np

from gradkeeper.callbacks._backend import Recorder
from gradkeeper.callbacks.instrument.ownership import Owner
from gradkeeper.callbacks.recording.reader import Records, Track, merged
from gradkeeper.callbacks.recording.rows import StepNumbering
from gradkeeper.callbacks.window import Window, change_rows


class LoopSteps:
    """Grouping of the calls of several optimizers into one row per train step, as in `fit`.

    The recorder of a custom loop writes one row per call. A train step ends after the call that
    completes one call of every optimizer, or before a second call of the same optimizer. Example:
    with five critic calls per generator call, each critic call is a train step, and the fifth step
    also contains the generator call.

    Args:
        optimizers: number of optimizers that the loop calls.
    """

    def __init__(self, optimizers: int) -> None:
        self._optimizers = optimizers
        self._waiting: Records | None = None
        self.steps = 0

    def together(self, records: Records | None, *, is_last: bool = False) -> Records | None:
        """Return the complete train steps; None if there are none.

        Args:
            records: the calls since the last call of this method.
            is_last: whether the loop has ended, which also completes a partial step.
        """
        records, self._waiting = _joined(self._waiting, records), None
        if records is None:
            return None
        # The index of the track of each row, [rows].
        called = [track.present.any(axis=1) for track in records.by_optimizer.values()]
        owners = np.argmax(called, axis=0)
        numbers, is_complete = self._numbers(owners)
        if not (is_complete or is_last):
            begun = int(np.argmax(numbers == numbers[-1]))
            records, self._waiting = _split(records, begun)
            owners, numbers = owners[:begun], numbers[:begun]
        if not len(numbers):
            return None
        first, self.steps = self.steps, self.steps + int(numbers[-1]) + 1
        return _by_step(records, owners, numbers, first)

    def _numbers(self, owners: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the train step of each call, from 0, and whether the last step is complete."""
        numbers: list[int] = []
        step, called = 0, set[int]()
        for owner in owners.tolist():
            if owner in called:
                step, called = step + 1, set()
            numbers.append(step)
            called.add(owner)
            if len(called) == self._optimizers:
                step, called = step + 1, set()
        return np.array(numbers), not called


def _by_step(records: Records, owners: np.ndarray, numbers: np.ndarray, first: int) -> Records:
    count = int(numbers[-1]) + 1
    steps = np.arange(first, first + count)
    rows = [np.full(count, -1) for _ in records.by_optimizer]
    for row, (owner, number) in enumerate(zip(owners, numbers, strict=True)):
        rows[owner][number] = row
    tracks = {
        track: _placed(window, at, steps)
        for (track, window), at in zip(records.by_optimizer.items(), rows, strict=True)
    }
    parts = [_placed(records.window, at, steps) for at in rows]
    window = dataclasses.replace(
        merged(parts, records.window.variables),
        calls=tuple(tracks.values()) if len(tracks) > 1 else (),
        facts=records.window.facts,
    )
    step_of = dict(zip(records.window.steps.tolist(), (first + numbers).tolist(), strict=True))
    pictures: dict[int, dict] = {}
    for call, histograms in records.histograms.items():
        pictures.setdefault(step_of[call], {}).update(histograms)
    return Records(window, tracks, records.lost, pictures)


def _placed(window: Window, rows: np.ndarray, steps: np.ndarray) -> Window:
    """Return the rows at these indices; index -1 gives a step without a gradient."""

    def place(values: np.ndarray) -> np.ndarray:
        placed = values[np.maximum(rows, 0)]
        placed[rows < 0] = np.nan if np.issubdtype(placed.dtype, np.floating) else 0
        return placed

    return dataclasses.replace(change_rows(window, place), steps=steps, calls=())


def _joined(one: Records | None, other: Records | None) -> Records | None:
    if one is None or other is None:
        return one or other

    def part(records: Records, track: Track) -> Window:
        none = np.zeros((len(records.window), 0), bool)
        return records.by_optimizer.get(track) or Window(records.window.steps, (), none, none, {})

    tracks = {
        track: Window.concatenate([part(one, track), part(other, track)])
        for track in {**one.by_optimizer, **other.by_optimizer}
    }
    window = Window.concatenate([one.window, other.window])
    return Records(window, tracks, one.lost + other.lost, {**one.histograms, **other.histograms})


def _split(records: Records, row: int) -> tuple[Records, Records]:
    def part(rows: slice, lost: int) -> Records:
        window = dataclasses.replace(records.window, calls=())[rows]
        tracks = {track: window[rows] for track, window in records.by_optimizer.items()}
        steps = set(window.steps.tolist())
        pictures = {step: each for step, each in records.histograms.items() if step in steps}
        return Records(window, tracks, lost, pictures)

    return part(slice(row), records.lost), part(slice(row, None), 0)


class RecordStream:
    """Records over all `fit` calls and custom loops of a monitor, with continuous step numbers.

    Attributes:
        recorder: the current recorder; None before the first step.
        numbering: the step numbers.
        loop_has_ended: whether the custom loop has ended, which completes its last step.
    """

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.numbering = StepNumbering()
        self._loop: LoopSteps | None = None
        self.loop_has_ended = False

    def follow(self, recorder: Recorder, *, loop: LoopSteps | None = None) -> None:
        """Switch to a recorder, whose next step follows the last recorded one.

        Args:
            recorder: the recorder.
            loop: groups the rows of the recorder into train steps, for a custom loop with several
                optimizers.
        """
        self.recorder = recorder
        self._loop, self.loop_has_ended = loop, False
        self.numbering.start(recorder.wait() if loop is None else loop.steps)

    def read(self, owner: Owner) -> Records | None:
        """Return the records since the last call, with continuous step numbers.

        Args:
            owner: the reader. If another owner has acquired the recorder, the result is None.
        """
        if self.recorder is None or not self.recorder.is_owned_by(owner):
            return None
        taken = self.recorder.wait()
        records = self.recorder.drain()
        if self._loop is not None:
            records = self._loop.together(records, is_last=self.loop_has_ended)
            taken = self._loop.steps
        self.numbering.advance(taken)
        if records is None:
            return None
        tracks = {name: self._numbered(window) for name, window in records.by_optimizer.items()}
        offset = self.numbering.offset
        pictures = {step + offset: each for step, each in records.histograms.items()}
        return Records(self._numbered(records.window), tracks, records.lost, pictures)

    def _numbered(self, window: Window) -> Window:
        calls = tuple(self._numbered(call) for call in window.calls)
        return dataclasses.replace(window, steps=window.steps + self.numbering.offset, calls=calls)
