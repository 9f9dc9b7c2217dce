"""Measurement of the overhead of a monitor during a run."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.recording.recorder import Recorder

_FIRST_CALL = 100
_PAIRS = 16
_AGAIN_AFTER = 5000
_AFFORDABLE = 0.001
_MOST = 0.9


@dataclass(frozen=True)
class Overhead:
    """Overhead of a monitor relative to the training time.

    Attributes:
        measuring: extra time of a measured step relative to an unmeasured step, estimated from
            steps that are measured once and twice in round; NaN if no steps were compared.
        quartiles: lower and upper quartile of `measuring` over the pairs of adjacent steps.
        pairs: number of compared pairs of steps.
        every: one in `every` steps is measured.
        host: time for reading, rules and sinks relative to the time of the train steps; NaN
            after too few train steps.
    """

    measuring: float
    quartiles: tuple[float, float]
    pairs: int
    every: int
    host: float

    @property
    def total(self) -> float:
        """Extra time relative to training without the monitor; NaN if unknown."""
        return self.measuring / self.every + self.host

    def __str__(self) -> str:
        if math.isnan(self.host):
            return "unknown: too few steps"
        host = f"reading, rules and sinks {100 * self.host:.1f} %"
        if math.isnan(self.measuring):
            return f"{host} of the training time; overhead of the compiled step not measured"
        low, high = self.quartiles
        downsampled = f", one step in {self.every} is measured" if self.every > 1 else ""
        return (
            f"{100 * self.total:.1f} % of the training time: a measured step "
            f"{100 * self.measuring:+.1f} % (quartiles {100 * low:+.1f} to {100 * high:+.1f} %, "
            f"{self.pairs} pairs of steps){downsampled}; {host}"
        )


class OverheadMeter:
    """Timer that compares train steps measured once with train steps measured twice.

    The comparison starts after 100 calls of the train function, when tracing and caches have
    settled. It takes 32 calls, every second one of which is measured twice, so that no step is
    left unmeasured. With a budget, the interval between measured steps is then increased until
    the overhead is within the budget, and the comparison is repeated every 5000 calls.

    Args:
        every: the smallest interval: at most one in `every` steps is measured.
        budget: the allowed share of the training time; None for no limit.
    """

    def __init__(self, every: int, budget: float | None) -> None:
        self._every = self._least = every
        self._budget = budget
        self._calls = self._began = self._timed = 0
        self._seconds: tuple[list[float], list[float]] = ([], [])
        self._ratios: np.ndarray = np.zeros(0)
        self._in_steps = self._on_host = self._look = self._looked = self._start = 0.0
        self._comparing = False

    @property
    def every(self) -> int:
        """Interval between measured steps: one in `every` steps is measured."""
        return self._every

    @property
    def overhead(self) -> Overhead:
        """Overhead measured so far."""
        known = len(self._ratios) > 0
        low, middle, high = np.percentile(self._ratios, [25, 50, 75]) if known else [math.nan] * 3
        host = self._on_host / self._in_steps if self._timed >= _FIRST_CALL else math.nan
        quartiles = (float(low), float(high))
        return Overhead(float(middle), quartiles, len(self._ratios), self._every, host)

    def fit_begins(self) -> None:
        """Restart the count of calls for a new run."""
        self._calls = 0
        self._began = _FIRST_CALL
        self._seconds = ([], [])

    def call_begins(self, recorder: Recorder) -> None:
        """Start the timer. In a comparison, measure every second call twice."""
        number = self._calls - self._began
        self._comparing = recorder.options.comparable and 0 <= number < 2 * _PAIRS
        if self._comparing:
            recorder.measure_every(1)
            recorder.measure_twice(number % 2 == 1)
            recorder.wait()
        self._start = time.perf_counter()

    def call_ends(self, recorder: Recorder) -> None:
        """Stop the timer. After the last call of a comparison, evaluate the comparison."""
        number = self._calls - self._began
        if self._comparing:
            recorder.wait()
        seconds = time.perf_counter() - self._start
        self._calls += 1
        if self._calls > 1:  # the first call traces
            self._in_steps += seconds
            self._timed += 1
        if self._comparing:
            self._seconds[number % 2].append(seconds)
            if number == 2 * _PAIRS - 1:
                self._conclude(recorder)

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Time the block, in which records are read, checked by rules and written to sinks."""
        start = time.perf_counter()
        yield
        self._looked = time.perf_counter()
        self._look = self._looked - start
        self._on_host += self._look

    def look_is_affordable(self) -> bool:
        """Return True if the last flush took less than 0.1 % of the time since its end."""
        return self._look < _AFFORDABLE * (time.perf_counter() - self._looked)

    def _conclude(self, recorder: Recorder) -> None:
        once, twice = map(np.array, self._seconds)
        share = np.minimum(twice / once - 1, _MOST)  # relative to a step measured once
        self._ratios = share / (1 - share)
        recorder.measure_twice(False)
        self._seconds = ([], [])
        if self._budget is not None:
            self._began = self._calls + _AGAIN_AFTER
            left = max(self._budget - self.overhead.host, self._budget / 10)
            needed = math.ceil(max(0.0, self.overhead.measuring) / left)
            self._every = max(self._least, needed)
        recorder.measure_every(self._every)
