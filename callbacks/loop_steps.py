"""Grouping of optimizer calls into train steps in custom loops with several optimizers."""

import dataclasses

import numpy as np

from gradkeeper.callbacks.tap import Readout
from gradkeeper.callbacks.tap.readout import Track, merged
from gradkeeper.callbacks.window import Window


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
        self._waiting: Readout | None = None
        self.steps = 0

    def together(self, readout: Readout | None, *, is_last: bool = False) -> Readout | None:
        """Return the complete train steps; None if there are none.

        Args:
            readout: the calls since the last call of this method.
            is_last: whether the loop has ended, which also completes a partial step.
        """
        readout = _joined(self._waiting, readout)
        self._waiting = None
        if readout is None:
            return None
        owners = _owners(readout)
        numbers, is_complete = self._numbers(owners)
        if not (is_complete or is_last):
            begun = int(np.argmax(numbers == numbers[-1]))
            readout, self._waiting = _split(readout, begun)
            owners, numbers = owners[:begun], numbers[:begun]
        if not len(numbers):
            return None
        first, self.steps = self.steps, self.steps + int(numbers[-1]) + 1
        return _by_step(readout, owners, numbers, first)

    def _numbers(self, owners: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the train step of each call, from 0, and whether the last step is complete."""
        numbers: list[int] = []
        step, called = 0, set[int]()
        for owner in owners.tolist():
            if owner in called:
                step, called = step + 1, set[int]()
            numbers.append(step)
            called.add(owner)
            if len(called) == self._optimizers:
                step, called = step + 1, set[int]()
        return np.array(numbers), not called


def _owners(readout: Readout) -> np.ndarray:
    """Return the index of the track of each row, [rows]."""
    called = [track.present.any(axis=1) for track in readout.tracks.values()]
    return np.argmax(called, axis=0)


def _by_step(readout: Readout, owners: np.ndarray, numbers: np.ndarray, first: int) -> Readout:
    count = int(numbers[-1]) + 1
    steps = np.arange(first, first + count)
    rows = [np.full(count, -1) for _ in readout.tracks]
    for row, (owner, number) in enumerate(zip(owners, numbers, strict=True)):
        rows[owner][number] = row
    tracks = {
        track: _placed(window, at, steps)
        for (track, window), at in zip(readout.tracks.items(), rows, strict=True)
    }
    parts = [_placed(readout.window, at, steps) for at in rows]
    window = dataclasses.replace(
        merged(parts, readout.window.variables),
        calls=tuple(tracks.values()) if len(tracks) > 1 else (),
        facts=readout.window.facts,
    )
    step_of = dict(zip(readout.window.steps.tolist(), (first + numbers).tolist(), strict=True))
    pictures: dict[int, dict] = {}
    for call, histograms in readout.histograms.items():
        pictures.setdefault(step_of[call], {}).update(histograms)
    return Readout(window, tracks, readout.lost, pictures)


def _placed(window: Window, rows: np.ndarray, steps: np.ndarray) -> Window:
    """Return the rows at these indices; index -1 gives a step without a gradient."""
    is_missing = rows < 0
    placed = dataclasses.replace(window[np.maximum(rows, 0)], steps=steps, calls=())
    for flags in (placed.present, placed.updated):
        flags[is_missing] = False
    replica_norms = placed.replica_norms.copy()
    replica_norms[is_missing] = np.nan
    return dataclasses.replace(
        placed,
        values={name: _blank(value, is_missing) for name, value in placed.values.items()},
        scalars={name: _blank(value, is_missing) for name, value in placed.scalars.items()},
        replica_norms=replica_norms,
    )


def _blank(values: np.ndarray, is_missing: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[is_missing] = np.nan
    return values


def _joined(one: Readout | None, other: Readout | None) -> Readout | None:
    if one is None or other is None:
        return one or other
    tracks: dict[Track, Window] = {}
    for track in dict.fromkeys([*one.tracks, *other.tracks]):
        parts = [each.tracks.get(track) or _none(each.window.steps) for each in (one, other)]
        tracks[track] = Window.concatenate(parts)
    window = Window.concatenate([one.window, other.window])
    histograms = {**one.histograms, **other.histograms}
    return Readout(window, tracks, one.lost + other.lost, histograms)


def _split(readout: Readout, row: int) -> tuple[Readout, Readout]:
    def part(rows: slice, lost: int) -> Readout:
        window = dataclasses.replace(readout.window, calls=())[rows]
        tracks = {track: window[rows] for track, window in readout.tracks.items()}
        steps = set(window.steps.tolist())
        pictures = {step: each for step, each in readout.histograms.items() if step in steps}
        return Readout(window, tracks, lost, pictures)

    return part(slice(row), readout.lost), part(slice(row, None), 0)


def _none(steps: np.ndarray) -> Window:
    """Return a window of these steps without variables."""
    none = np.zeros((len(steps), 0), bool)
    return Window(steps, (), none, none, {})
