"""Settings of a monitor, and the meter of its overhead, which adapts them to a budget."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.callbacks._backend import Recorder
from gradkeeper.callbacks._text import Names, patterns_of
from gradkeeper.callbacks.instrument.variable_names import unique_names
from gradkeeper.callbacks.measurements.registry import GROUPS, Measurement, measurements_from
from gradkeeper.callbacks.recording.rows import Options

Optimizers: TypeAlias = (
    keras.optimizers.Optimizer
    | Sequence[keras.optimizers.Optimizer]
    | Mapping[str, keras.optimizers.Optimizer]
)

_FLUSH_EVERY = 50
_FLUSH_AT_LEAST_EVERY = 400
# No callback flushes in a custom loop, so many rows may have to wait.
_LOOP_CAPACITY = 4096
_NOT_ON_JAX = ("activations", "optimizer", *GROUPS["optimizer"])
_MEASUREMENTS = {"updates": "update_norm", "weights": "weight_norm"}
_WATCHABLE = ("gradients", "max_abs", *_MEASUREMENTS)


class Settings:
    """Recording settings: the arguments of a `GradientMonitor` that control recording.

    Attributes:
        optimizers: the optimizers that the user passed, by name; None for those of the model.

    Raises:
        ValueError: if an argument is invalid.
        TypeError: if an optimizer is not a Keras 3 optimizer.
    """

    def __init__(
        self,
        *,
        optimizers: Optimizers | None,
        watch: Sequence[str],
        measurements: Sequence[Measurement | str],
        layers: Names | None,
        schedule: "Schedule",
        warmup: int,
        histograms: bool,
    ) -> None:
        integer("warmup", warmup, minimum=0)
        _refuse_if_unavailable(
            measurements=[each for each in measurements if each in _NOT_ON_JAX],
            histograms=histograms,
        )
        self._has_budget = schedule.budget is not None
        watch = (watch,) if isinstance(watch, str) else tuple(watch)
        if not set(watch) <= set(_WATCHABLE):
            raise ValueError(f"watch accepts {', '.join(_WATCHABLE)}. Received: watch={watch}")
        self.optimizers = named_optimizers(optimizers)
        watched = [_MEASUREMENTS[name] for name in watch if name in _MEASUREMENTS]
        self._options = Options(
            capacity=schedule.unread_at_most,
            every=schedule.every_n_steps,
            measurements=measurements_from([*watched, *measurements]),
            largest="max_abs" in watch,
            histograms=schedule.flush_every if histograms else 0,
            layers=() if layers is None else patterns_of(layers),
            switchable=schedule.is_switchable,
        )

    @property
    def named_optimizers(self) -> list[keras.optimizers.Optimizer] | None:
        """Optimizers that the user passed; None for those of the model."""
        return None if self.optimizers is None else list(self.optimizers.values())

    def options(self, model: keras.Model | None) -> Options:
        """Return the options of a recorder for a model; for a custom loop without one.

        Raises:
            ValueError: if layer outputs are measured in a custom loop; if there is a budget on JAX
                with several processes.
        """
        if self._has_budget and _processes_on_jax() > 1:
            raise ValueError(
                "budget requires a single process on JAX: all processes must run the same step, "
                "but each would choose its own interval. Use every_n_steps. Received: "
                f"jax.process_count()={_processes_on_jax()}"
            )
        outputs = [each.name for each in self._options.measurements if each.event == "outputs"]
        if model is None and outputs:
            raise ValueError(
                "Layer outputs are measured in fit() only, not in a custom loop. Remove the "
                f"measurement, or train with fit(). Received: measurements={outputs}"
            )
        capacity, compiled = _LOOP_CAPACITY, True
        if model is not None:
            unread = model.steps_per_execution + self._options.capacity
            capacity = 1 << max(unread - 1, 255).bit_length()  # a power of two, at least 256
            compiled = bool(model.jit_compile) and not model.run_eagerly
        # A branch in a step that XLA compiles makes the host wait for the device.
        can_repeat = not compiled and keras.backend.backend() == "tensorflow"
        compared_with: Literal["twice", "unmeasured"] | None = "twice" if can_repeat else None
        if self._options.switchable and model is not None:
            compared_with = "unmeasured"
        return dataclasses.replace(self._options, capacity=capacity, compared_with=compared_with)


def _processes_on_jax() -> int:
    """Return the number of processes of a training on JAX; 1 on other backends."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def _refuse_if_unavailable(**given: Any) -> None:
    """Raise ValueError for arguments that need the TensorFlow backend."""
    backend = keras.backend.backend()
    refused = {name: value for name, value in given.items() if value}
    if backend != "tensorflow" and refused:
        received = ", ".join(f"{name}={value!r}" for name, value in refused.items())
        raise ValueError(
            f"These settings are available on the TensorFlow backend, not on {backend}. "
            f"Received: {received}"
        )


def named_optimizers(optimizers: Optimizers | None) -> dict[str, keras.optimizers.Optimizer] | None:
    """Return optimizers by name: the keys of a dict, or `optimizer.name`.

    Raises:
        TypeError: if an object is not a Keras 3 optimizer.
    """
    if optimizers is None:
        return None
    several: Any = optimizers if isinstance(optimizers, (list, tuple, Mapping)) else [optimizers]
    is_named = isinstance(several, Mapping)
    for each in several.values() if is_named else several:
        if not isinstance(each, keras.optimizers.Optimizer):
            raise TypeError(f"optimizers must be Keras 3 optimizers. Received: optimizer={each!r}")
    if is_named:
        return dict(several)
    return dict(zip(unique_names([each.name for each in several]), several, strict=True))


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
            steps that are alternately measured and not, or measured once and twice; NaN if no steps
            were compared.
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
        interval = f", one step in {self.every} is measured" if self.every > 1 else ""
        return (
            f"{100 * self.total:.1f} % of the training time: a measured step "
            f"{100 * self.measuring:+.1f} % (quartiles {100 * low:+.1f} to {100 * high:+.1f} %, "
            f"{self.pairs} pairs of steps){interval}; {host}"
        )


class OverheadMeter:
    """Timer that determines the cost of measuring a train step.

    The comparison starts after 100 calls of the train function, when tracing and caches have
    settled. It takes 32 calls, every second one of which is different. If some steps are not
    measured, calls with one measured step and calls without one alternate. Otherwise, every second
    call is measured twice, so that no step is left unmeasured. With a budget, the interval between
    measured steps is then increased until the overhead, with the upper quartile of the comparison,
    is within the budget, and the comparison is repeated every 5000 calls.

    Args:
        every: the smallest interval: at most one in `every` steps is measured.
        budget: the allowed share of the training time; None for no limit.

    Attributes:
        every: interval between measured steps: one in `every` steps is measured.
    """

    def __init__(self, every: int, budget: float | None) -> None:
        self.every = self._least = every
        self._budget = budget
        self._calls = self._began = self._timed = 0
        self._seconds: tuple[list[float], list[float]] = ([], [])
        self._ratios: np.ndarray = np.zeros(0)
        self._in_steps = self._on_host = self._look = self._looked = self._start = 0.0
        self._compared_with: str | None = None
        self._costs_more = False

    @property
    def overhead(self) -> Overhead:
        """Overhead measured so far."""
        known = np.percentile(self._ratios, [25, 50, 75]) if len(self._ratios) else [math.nan] * 3
        low, middle, high = map(float, known)
        host = self._on_host / self._in_steps if self._timed >= _FIRST_CALL else math.nan
        return Overhead(middle, (low, high), len(self._ratios), self.every, host)

    def fit_begins(self) -> None:
        """Restart the count of calls for a new run."""
        self._calls, self._began, self._seconds = 0, _FIRST_CALL, ([], [])

    def call_begins(self, recorder: Recorder) -> None:
        """Start the timer. In a comparison, choose what the call measures."""
        number = self._calls - self._began
        self._compared_with = recorder.options.compared_with if 0 <= number < 2 * _PAIRS else None
        if self._compared_with == "twice":
            self._costs_more = number % 2 == 1
            recorder.measure_twice(self._costs_more)
            recorder.wait()
        elif self._compared_with == "unmeasured":
            period = 2 * recorder.steps_per_call
            recorder.measure_every(period)
            self._costs_more = -recorder.wait() % period < recorder.steps_per_call
        self._start = time.perf_counter()

    def call_ends(self, recorder: Recorder, result: Any = None) -> None:
        """Stop the timer. After the last call of a comparison, evaluate the comparison."""
        number = self._calls - self._began
        if self._compared_with is not None:
            recorder.wait(result)
        seconds = time.perf_counter() - self._start
        self._calls += 1
        if self._calls > 1:  # the first call traces
            self._in_steps += seconds
            self._timed += 1
        if self._compared_with is not None:
            self._seconds[self._costs_more].append(seconds)
            if number == 2 * _PAIRS - 1:
                self._conclude(recorder)

    @contextmanager
    def on_host(self, recorder: Recorder | None) -> Iterator[None]:
        """Time the block, in which records are read, checked by rules and written to sinks.

        Wait before for the train steps of `recorder` that are still running.
        """
        called = time.perf_counter()
        if recorder is not None:
            recorder.wait()
        start = time.perf_counter()
        self._in_steps += start - called
        yield
        self._looked = time.perf_counter()
        self._look = self._looked - start
        self._on_host += self._look

    def look_is_affordable(self) -> bool:
        """Return True if the last flush took less than 0.1 % of the time since its end."""
        return self._look < _AFFORDABLE * (time.perf_counter() - self._looked)

    def _conclude(self, recorder: Recorder) -> None:
        # An execution of several steps that ends early shifts the calls by one.
        pairs = min(map(len, self._seconds))
        less, more = (np.array(each[:pairs]) for each in self._seconds)
        if self._compared_with == "twice":
            share = np.minimum(more / less - 1, _MOST)  # relative to a step measured once
            self._ratios = share / (1 - share)
            recorder.measure_twice(False)
        else:
            self._ratios = (more / less - 1) * recorder.steps_per_call
        self._seconds = ([], [])
        if self._budget is not None:
            self._began = self._calls + _AGAIN_AFTER
            left = max(self._budget - self.overhead.host, self._budget / 10)
            if pairs:
                # The median of steps of 2 to 3 ms varies by 5 %, and is often too low on JAX.
                _, high = self.overhead.quartiles
                needed = math.ceil(max(0.0, high) / left)
                self.every = max(self._least, needed)
        recorder.measure_every(self.every)


class Schedule:
    """Schedule of a monitor: which steps are measured, and when the ring buffers are flushed.

    Args:
        every_n_steps: measure one in this many train steps.
        flush_every: minimum number of train steps between two flushes. None for 50, and up to 400
            if a flush would take more than 0.1 % of the time since the last one.
        budget: the allowed share of the training time; None for no limit.

    Attributes:
        meter: the meter of the overhead, which adapts the interval between measured steps.
        unread_at_most: number of steps that may be unread when a flush is due.
        is_switchable: whether some steps are not measured.

    Raises:
        ValueError: if an argument is invalid.
    """

    def __init__(self, every_n_steps: int, flush_every: int | None, budget: float | None) -> None:
        self.every_n_steps = every_n_steps
        self.flush_every = _FLUSH_EVERY if flush_every is None else flush_every
        integer("every_n_steps", every_n_steps)
        integer("flush_every", self.flush_every)
        if budget is not None:
            number("budget", budget, "(0, 1)")
        self.budget = budget
        self.meter = OverheadMeter(every_n_steps, budget)
        self._waits = flush_every is None
        self.unread_at_most = max(self.flush_every, _FLUSH_AT_LEAST_EVERY if self._waits else 0)
        self.is_switchable = budget is not None or every_n_steps > 1
        self.flushed()

    def flushed(self) -> None:
        """Restart the count of unread steps after a flush."""
        self._unread, self._due = 0, self.flush_every

    def add(self, steps: int) -> None:
        """Count train steps that are about to run."""
        self._unread += steps

    def flush_is_due(self) -> bool:
        """Return True if it is time to flush."""
        if self._unread < self._due:
            return False
        may_wait = self._waits and self._unread < _FLUSH_AT_LEAST_EVERY
        if may_wait and not self.meter.look_is_affordable():
            self._due = min(self._unread + self.flush_every, _FLUSH_AT_LEAST_EVERY)
            return False
        return True
