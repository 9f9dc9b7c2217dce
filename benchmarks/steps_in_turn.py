"""Plain train steps, and in turn with them those of the same model with something added."""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from watched_models import Built

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard

# Seconds per plain step and per other step, [blocks] each.
Times: TypeAlias = tuple[np.ndarray, np.ndarray]

BLOCK = 50
ROWS = 1000  # of the ring of the least monitor
SETTLE = 150  # the monitor compares its own cost in the first steps


class SecondTape(keras.callbacks.Callback):
    """What people do today: the gradients once more, beside the training."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__()
        self._x, self._norms = tf.constant(x), None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._norms is None:
            self._norms = tf.function(self._measure)
        self._norms()

    def _measure(self) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(self._x, training=True)))
        return [tf.norm(g) for g in tape.gradient(loss, self.model.trainable_variables)]


def compiled(build: Callable[[], Built], jit_compile: bool) -> tuple[keras.Model, Iterator]:
    """A model and an endless iterator over its batch."""
    keras.utils.set_random_seed(0)
    model, x = build()
    model.compile(keras.optimizers.Adam(1e-5), "mse", jit_compile=jit_compile)
    x = x.astype("int32" if x.dtype.kind == "i" else "float32")
    batch = tf.data.Dataset.from_tensors((x, np.zeros((len(x), 1), "float32")))
    return model, iter(batch.repeat())


class Runner:
    """Trains steps of a model with some callbacks attached, as `fit` does: from one frame."""

    def __init__(
        self, model: keras.Model, data: Iterator, callbacks: list[keras.callbacks.Callback]
    ) -> None:
        self._model, self._data = model, data
        self._callbacks = keras.callbacks.CallbackList(callbacks, model=model)
        self._steps = self._fit()
        model.make_train_function()

    def seconds(self) -> float:
        """Trains one step; how long that took."""
        return next(self._steps)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The block in which steps are trained."""
        yield
        self._steps.close()

    def _fit(self) -> Generator[float, None, None]:
        self._callbacks.on_train_begin()
        try:
            for step in itertools.count():
                start = time.perf_counter()
                self._callbacks.on_train_batch_begin(step)
                logs = self._model.train_function(self._data)
                self._callbacks.on_train_batch_end(step, logs)
                yield time.perf_counter() - start
        finally:
            self._callbacks.on_train_end()


def compare(one: Runner, other: Runner, seconds: float) -> Times:
    """Seconds per step of each of two runners, [blocks], trained in turn."""
    times: list[tuple[float, float]] = []
    for _ in range(SETTLE):
        one.seconds(), other.seconds()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        block = np.array([(one.seconds(), other.seconds()) for _ in range(BLOCK)])
        times.append(tuple(block.mean(axis=0)))
    first, second = np.array(times).T
    return first, second


def watched(build: Callable[[], Built], jit_compile: bool, seconds: float, **options: Any) -> Times:
    """Seconds per plain step and per watched step, [blocks]."""
    model, data = compiled(build, jit_compile)
    monitor = GradientMonitor(verbose=0, **options)
    plain, with_monitor = Runner(model, data, []), Runner(model, data, [monitor])
    with plain.training(), with_monitor.training():
        times = compare(plain, with_monitor, seconds)
    assert len(monitor.history) >= 3 * BLOCK, "the monitor has not recorded the steps"
    return times


def guarded(build: Callable[[], Built], jit_compile: bool, seconds: float, **options: Any) -> Times:
    """The same with a guard."""
    model, data = compiled(build, jit_compile)
    guard = NonFiniteGuard(**options)
    plain, with_guard = Runner(model, data, []), Runner(model, data, [guard])
    with plain.training(), with_guard.training():
        times = compare(plain, with_guard, seconds)
    assert not guard.skipped, "the guard has refused a step"
    return times


def again(build: Callable[[], Built], jit_compile: bool, seconds: float) -> Times:
    """The same plain training twice, each with a train function of its own: what chance does."""
    model, data = compiled(build, jit_compile)
    same, its_data = compiled(build, jit_compile)
    one, other = Runner(model, data, []), Runner(same, its_data, [])
    with one.training(), other.training():
        return compare(one, other, seconds)


def norms_alone(build: Callable[[], Built], jit_compile: bool, seconds: float) -> Times:
    """The same where each gradient's norm is written to a row of a variable, and nothing else.

    What every monitor costs at least. It watches for no overflow, does not add up an embedding's
    rows of one index, and nobody reads what it has written.
    """
    model, data = compiled(build, jit_compile)
    read, its_data = compiled(build, jit_compile)
    rows = tf.Variable(tf.zeros([ROWS, len(read.trainable_variables)]))
    original = read.optimizer.apply

    def apply(grads: Any, trainable_variables: Any = None) -> None:
        grads = list(grads)
        halves = [tf.nn.l2_loss(getattr(each, "values", each)) for each in grads]
        slot = tf.cast(read.optimizer.iterations.value % ROWS, tf.int32)
        rows.scatter_nd_update(tf.reshape(slot, [1, 1]), tf.sqrt(2 * tf.stack(halves))[tf.newaxis])
        original(grads, trainable_variables)

    read.optimizer.apply = apply
    plain, reads = Runner(model, data, []), Runner(read, its_data, [])
    with plain.training(), reads.training():
        return compare(plain, reads, seconds)


def waiting(
    build: Callable[[], Built], jit_compile: bool, seconds: float, *, reading: bool = False
) -> Times:
    """The same where no update begins before the last gradient is there.

    What every guard costs at least: it cannot allow the first update before that, and it has
    to read each gradient once to know whether it is finite.

    Args:
        reading: read each gradient once, its sum, and wait for the sums; otherwise nothing is
            checked.
    """
    model, data = compiled(build, jit_compile)
    late, its_data = compiled(build, jit_compile)
    original = late.optimizer.apply

    def apply(grads: Any, trainable_variables: Any = None) -> None:
        grads = list(grads)
        parts = tf.nest.flatten(grads, expand_composites=True)
        if reading:
            parts += [tf.reduce_sum(part) for part in parts if part.dtype.is_floating]
        with tf.control_dependencies(parts):
            all_are_there = tf.no_op()
        # One edge for each operation of the update, not as many as there are gradients.
        with tf.control_dependencies([all_are_there]):
            original(grads, trainable_variables)

    late.optimizer.apply = apply
    plain, waits = Runner(model, data, []), Runner(late, its_data, [])
    with plain.training(), waits.training():
        return compare(plain, waits, seconds)


def second_tape(build: Callable[[], Built], seconds: float) -> Times:
    """The same with a second tape in a callback."""
    model, data = compiled(build, jit_compile=False)
    twice = SecondTape(next(data)[0].numpy())
    plain, beside = Runner(model, data, []), Runner(model, data, [twice])
    with plain.training(), beside.training():
        return compare(plain, beside, seconds)


@contextlib.contextmanager
def check_numerics() -> Iterator[None]:
    """TensorFlow's check of every operation."""
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@contextlib.contextmanager
def debugger_v2() -> Iterator[None]:
    """TensorFlow's debugger, counting non-finite elements of every tensor."""
    with tempfile.TemporaryDirectory() as folder:
        tf.debugging.experimental.enable_dump_debug_info(
            folder, tensor_debug_mode="CONCISE_HEALTH", circular_buffer_size=1000
        )
        yield
        tf.debugging.experimental.disable_dump_debug_info()


def under(
    tool: Callable[[], contextlib.AbstractContextManager],
    build: Callable[[], Built],
    seconds: float,
) -> Times:
    """The same with a tool that changes what is traced while it is on."""
    model, data = compiled(build, jit_compile=False)
    other, its_data = compiled(build, jit_compile=False)
    plain, debugged = Runner(model, data, []), Runner(other, its_data, [])
    with plain.training():
        plain.seconds()
        with tool(), debugged.training():
            return compare(plain, debugged, seconds)
