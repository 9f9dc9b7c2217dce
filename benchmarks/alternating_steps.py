"""Train steps of a plain model and of a model with an addition, timed alternately."""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
from overhead_models import Built

from gradkeeper.callbacks import GradientMonitor

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
elif BACKEND == "torch":
    import torch

# Seconds per plain step and per other step, [blocks] each.
Times: TypeAlias = tuple[np.ndarray, np.ndarray]
Build: TypeAlias = Callable[[], Built]

# In the first steps, the monitor measures its own cost: on TensorFlow always, elsewhere with a
# budget. Steps of recurrent layers on torch take up to a second.
SETTLED = 150
BLOCK, SETTLE = (10, 10) if BACKEND == "torch" else (50, SETTLED)
ON_JAX = BACKEND == "jax"
# Steps of one model in a row. On JAX, the host runs ahead of the device, as in `fit`.
IN_A_ROW = BLOCK if ON_JAX else 1


def compiled(build: Build, jit_compile: bool) -> tuple[keras.Model, Iterator]:
    """Return a compiled model and an endless iterator over one batch."""
    keras.utils.set_random_seed(0)
    model, x = build()
    model.compile(keras.optimizers.Adam(1e-5), "mse", jit_compile=jit_compile or ON_JAX)
    x = x.astype("int32" if x.dtype.kind == "i" else "float32")
    batch = x, np.zeros((len(x), 1), "float32")
    if ON_JAX:
        model.train_on_batch(*batch)  # creates the variables of optimizer and metrics
        return model, itertools.repeat(batch)
    if BACKEND == "torch":
        tensors = tuple(torch.tensor(each) for each in batch)
        model.train_on_batch(*tensors)
        return model, itertools.repeat((tensors,))
    import tensorflow as tf

    return model, iter(tf.data.Dataset.from_tensors(batch).repeat())


class Runner:
    """Train steps of a model with callbacks attached, from a single frame, as `fit` does."""

    def __init__(
        self, model: keras.Model, data: Iterator, callbacks: list[keras.callbacks.Callback]
    ) -> None:
        self._model, self._data = model, data
        self._callbacks = keras.callbacks.CallbackList(callbacks, model=model)
        self._steps = self._fit()
        self._state = state_of(model) if ON_JAX else None
        model.make_train_function()

    def seconds(self) -> float:
        """Train `IN_A_ROW` steps and return the seconds of a step."""
        return next(self._steps)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Finish the training at the end of the block."""
        yield
        self._steps.close()

    def _fit(self) -> Generator[float, None, None]:
        self._callbacks.on_train_begin()
        try:
            for block in itertools.count():
                start = time.perf_counter()
                for step in range(block * IN_A_ROW, (block + 1) * IN_A_ROW):
                    self._callbacks.on_train_batch_begin(step)
                    if ON_JAX:
                        logs, self._state = self._model.train_function(self._state, self._data)
                    elif BACKEND == "torch":
                        logs = self._model.train_function(next(self._data))
                    else:
                        logs = self._model.train_function(self._data)
                    self._callbacks.on_train_batch_end(step, logs)
                if ON_JAX:
                    jax.block_until_ready(self._state)
                yield (time.perf_counter() - start) / IN_A_ROW
        finally:
            self._callbacks.on_train_end()


def state_of(model: keras.Model) -> tuple[list, ...]:
    """Return a copy of the values that the train step of JAX updates."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return tuple([jax.numpy.array(each.value) for each in group] for group in groups)


def compare(one: Runner, other: Runner, seconds: float, settle: int = SETTLE) -> Times:
    """Train two runners alternately; return the seconds per step of each, [blocks].

    The first `settle` steps do not count.
    """
    times: list[tuple[float, float]] = []
    with one.training(), other.training():
        for _ in range(settle // IN_A_ROW):
            one.seconds(), other.seconds()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            block = np.array([(one.seconds(), other.seconds()) for _ in range(BLOCK // IN_A_ROW)])
            times.append(tuple(block.mean(axis=0)))
    first, second = np.array(times).T
    return first, second


def with_callback(
    build: Build,
    jit_compile: bool,
    seconds: float,
    callback: keras.callbacks.Callback,
    settle: int = SETTLE,
) -> Times:
    """Time a model without and with a callback; both use the same compiled model."""
    model, data = compiled(build, jit_compile)
    return compare(Runner(model, data, []), Runner(model, data, [callback]), seconds, settle)


def with_change(
    build: Build, jit_compile: bool, seconds: float, change: Callable[[keras.Model], None]
) -> Times:
    """Time a model against a second trace of it, whose model `change` modifies before."""
    model, data = compiled(build, jit_compile)
    changed, its_data = compiled(build, jit_compile)
    change(changed)
    return compare(Runner(model, data, []), Runner(changed, its_data, []), seconds)


def monitored(build: Build, jit_compile: bool, seconds: float, **options: Any) -> Times:
    """Time the steps without and with a GradientMonitor."""
    monitor = GradientMonitor(**options, verbose=0)
    has_budget = "budget" in options
    times = with_callback(build, jit_compile, seconds, monitor, SETTLED if has_budget else SETTLE)
    # A budget measures each of the first 100 steps.
    rows = 100 if has_budget else 3 * BLOCK // options.get("every_n_steps", 1)
    assert len(monitor.history) >= rows, "the monitor did not record the steps"
    return times


def guarded(build: Build, jit_compile: bool, seconds: float, **options: Any) -> Times:
    """Time the steps without and with a NonFiniteGuard."""
    from gradkeeper.callbacks import NonFiniteGuard

    guard = NonFiniteGuard(**options)
    times = with_callback(build, jit_compile, seconds, guard)
    assert not guard.skipped, "the guard skipped a step"
    return times


def again(build: Build, jit_compile: bool, seconds: float) -> Times:
    """Time the plain model against a second trace of it: the noise of the measurement."""
    return with_change(build, jit_compile, seconds, lambda model: None)
