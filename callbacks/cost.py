"""What a monitor costs in the very run that it watches."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.tap import Recorder

_FIRST_CALL = 100
_PAIRS = 16
_AGAIN_AFTER = 5000
_AFFORDABLE = 0.001
_MOST = 0.9


@dataclass(frozen=True)
class Cost:
    """The monitor's share of a training's time.

    Attributes:
        measuring: added time of a measured step over that of a step not measured, from
            steps measured once and twice in turn; NaN where they were not compared.
        quartiles: lower and upper quartile of that over the pairs of neighbours.
        pairs: how many pairs of steps were compared.
        every: of how many steps one is measured.
        host: time of reading, judging and writing over the time of the train steps; NaN
            after too few of them.
    """

    measuring: float
    quartiles: tuple[float, float]
    pairs: int
    every: int
    host: float

    @property
    def total(self) -> float:
        """Added time over the time of training without the monitor; NaN if not known."""
        return self.measuring / self.every + self.host

    def __str__(self) -> str:
        if math.isnan(self.host):
            return "not known: too few steps were trained"
        host = f"reading and judging {100 * self.host:.1f} %"
        if math.isnan(self.measuring):
            return f"{host} of the training; the compiled step's share was not compared"
        low, high = self.quartiles
        thinned = f", one step of {self.every} measured" if self.every > 1 else ""
        return (
            f"{100 * self.total:.1f} % of the training: a measured step "
            f"{100 * self.measuring:+.1f} % (quartiles {100 * low:+.1f} to {100 * high:+.1f} %, "
            f"{self.pairs} pairs of steps){thinned}; {host}"
        )


class CostMeter:
    """Times train steps measured once and twice in turn, for a short while.

    After some hundred calls of the train function, when traces and caches are settled, every
    other call of a few dozen is measured twice: no step goes unmeasured. With a budget,
    measuring is then thinned until its cost keeps within it, and compared again from time to
    time.

    Args:
        every: of how many steps one is measured, at most.
        budget: the share of the training's time that the monitor may cost; None for any.
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
        """Of how many steps one is to be measured."""
        return self._every

    @property
    def cost(self) -> Cost:
        """What is known by now."""
        known = len(self._ratios) > 0
        low, middle, high = np.percentile(self._ratios, [25, 50, 75]) if known else [math.nan] * 3
        host = self._on_host / self._in_steps if self._timed >= _FIRST_CALL else math.nan
        quartiles = (float(low), float(high))
        return Cost(float(middle), quartiles, len(self._ratios), self._every, host)

    def fit_begins(self) -> None:
        """A new training is timed from its own first call on."""
        self._calls = 0
        self._began = _FIRST_CALL
        self._seconds = ([], [])

    def call_begins(self, recorder: Recorder) -> None:
        """Takes the time before a call of the train function."""
        number = self._calls - self._began
        self._comparing = recorder.options.comparable and 0 <= number < 2 * _PAIRS
        if self._comparing:
            recorder.measure_every(1)
            recorder.measure_twice(number % 2 == 1)
            recorder.wait()
        self._start = time.perf_counter()

    def call_ends(self, recorder: Recorder) -> None:
        """Takes the time after it."""
        number = self._calls - self._began
        if self._comparing:
            recorder.wait()
        seconds = time.perf_counter() - self._start
        self._calls += 1
        if self._calls > 1:  # the first one traces
            self._in_steps += seconds
            self._timed += 1
        if self._comparing:
            self._seconds[number % 2].append(seconds)
            if number == 2 * _PAIRS - 1:
                self._conclude(recorder)

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Stands around reading, judging and writing."""
        start = time.perf_counter()
        yield
        self._looked = time.perf_counter()
        self._look = self._looked - start
        self._on_host += self._look

    def look_is_affordable(self) -> bool:
        """Whether a look like the last one takes little of the time that has passed since."""
        return self._look < _AFFORDABLE * (time.perf_counter() - self._looked)

    def _conclude(self, recorder: Recorder) -> None:
        once, twice = map(np.array, self._seconds)
        share = np.minimum(twice / once - 1, _MOST)  # of a step measured once
        self._ratios = share / (1 - share)
        recorder.measure_twice(False)
        self._seconds = ([], [])
        if self._budget is not None:
            self._began = self._calls + _AGAIN_AFTER
            left = max(self._budget - self.cost.host, self._budget / 10)
            needed = math.ceil(max(0.0, self.cost.measuring) / left)
            self._every = max(self._least, needed)
        recorder.measure_every(self._every)
