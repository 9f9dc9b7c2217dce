"""Train steps of a plain model and of a model with an addition, timed alternately."""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from overhead_models import Built

from gradkeeper.callbacks import GradientMonitor, NonFiniteGuard

# Seconds per plain step and per other step, [blocks] each.
Times: TypeAlias = tuple[np.ndarray, np.ndarray]
Build: TypeAlias = Callable[[], Built]

BLOCK = 50
ROWS = 1000  # rows of the ring buffer in the minimal monitor
SETTLE = 150  # the monitor measures its own cost in the first steps


class SecondTape(keras.callbacks.Callback):
    """Common workaround: compute the gradients a second time in a callback."""

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


def compiled(build: Build, jit_compile: bool) -> tuple[keras.Model, Iterator]:
    """Return a compiled model and an endless iterator over one batch."""
    keras.utils.set_random_seed(0)
    model, x = build()
    model.compile(keras.optimizers.Adam(1e-5), "mse", jit_compile=jit_compile)
    x = x.astype("int32" if x.dtype.kind == "i" else "float32")
    batch = tf.data.Dataset.from_tensors((x, np.zeros((len(x), 1), "float32")))
    return model, iter(batch.repeat())


class Runner:
    """Train steps of a model with callbacks attached, from a single frame, as `fit` does."""

    def __init__(
        self, model: keras.Model, data: Iterator, callbacks: list[keras.callbacks.Callback]
    ) -> None:
        self._model, self._data = model, data
        self._callbacks = keras.callbacks.CallbackList(callbacks, model=model)
        self._steps = self._fit()
        model.make_train_function()

    def seconds(self) -> float:
        """Train one step and return its seconds."""
        return next(self._steps)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Finish the training at the end of the block."""
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
    """Train two runners alternately; return the seconds per step of each, [blocks]."""
    times: list[tuple[float, float]] = []
    with one.training(), other.training():
        for _ in range(SETTLE):
            one.seconds(), other.seconds()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            block = np.array([(one.seconds(), other.seconds()) for _ in range(BLOCK)])
            times.append(tuple(block.mean(axis=0)))
    first, second = np.array(times).T
    return first, second


def with_callback(
    build: Build, jit_compile: bool, seconds: float, callback: keras.callbacks.Callback
) -> Times:
    """Time a model without and with a callback; both use the same compiled model."""
    model, data = compiled(build, jit_compile)
    return compare(Runner(model, data, []), Runner(model, data, [callback]), seconds)


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
    times = with_callback(build, jit_compile, seconds, monitor)
    rows = 3 * BLOCK // options.get("every_n_steps", 1)
    assert len(monitor.history) >= rows, "the monitor did not record the steps"
    return times


def guarded(build: Build, jit_compile: bool, seconds: float, **options: Any) -> Times:
    """Time the steps without and with a NonFiniteGuard."""
    guard = NonFiniteGuard(**options)
    times = with_callback(build, jit_compile, seconds, guard)
    assert not guard.skipped, "the guard skipped a step"
    return times


def again(build: Build, jit_compile: bool, seconds: float) -> Times:
    """Time the plain model against a second trace of it: the noise of the measurement."""
    return with_change(build, jit_compile, seconds, lambda model: None)


def norms_alone(build: Build, jit_compile: bool, seconds: float) -> Times:
    """Time a minimal monitor that only writes each gradient's norm to a row of a variable.

    This is a lower bound for every monitor. It does not check for overflow, does not sum an
    embedding's rows with the same index, and its rows are never read.
    """

    def record_norms(model: keras.Model) -> None:
        rows = tf.Variable(tf.zeros([ROWS, len(model.trainable_variables)]))
        original = model.optimizer.apply

        def apply(grads: Any, trainable_variables: Any = None) -> None:
            grads = list(grads)
            halves = [tf.nn.l2_loss(getattr(each, "values", each)) for each in grads]
            norms = tf.sqrt(2 * tf.stack(halves))
            row = tf.cast(model.optimizer.iterations.value % ROWS, tf.int32)
            rows.scatter_nd_update(tf.reshape(row, [1, 1]), norms[tf.newaxis])
            original(grads, trainable_variables)

        model.optimizer.apply = apply

    return with_change(build, jit_compile, seconds, record_norms)


def waiting(build: Build, jit_compile: bool, seconds: float, *, reading: bool = False) -> Times:
    """Time a minimal guard: no update begins before the last gradient is computed.

    This is a lower bound for every guard: it must not allow an update before that, and must read
    each gradient once to check that it is finite.

    Args:
        reading: compute the sum of each gradient and wait for the sums; otherwise nothing is
            checked.
    """

    def delay_updates(model: keras.Model) -> None:
        original = model.optimizer.apply

        def apply(grads: Any, trainable_variables: Any = None) -> None:
            grads = list(grads)
            parts = tf.nest.flatten(grads, expand_composites=True)
            if reading:
                parts += [tf.reduce_sum(part) for part in parts if part.dtype.is_floating]
            with tf.control_dependencies(parts):
                all_are_there = tf.no_op()
            # One edge for each operation of the update, instead of one per gradient.
            with tf.control_dependencies([all_are_there]):
                original(grads, trainable_variables)

        model.optimizer.apply = apply

    return with_change(build, jit_compile, seconds, delay_updates)


def second_tape(build: Build, seconds: float) -> Times:
    """Time a second tape in a callback."""
    _, data = compiled(build, jit_compile=False)
    return with_callback(build, False, seconds, SecondTape(next(data)[0].numpy()))


@contextlib.contextmanager
def check_numerics() -> Iterator[None]:
    """Enable TensorFlow's check of every operation."""
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@contextlib.contextmanager
def debugger_v2() -> Iterator[None]:
    """Enable TensorFlow's debugger, which counts non-finite elements of every tensor."""
    with tempfile.TemporaryDirectory() as folder:
        tf.debugging.experimental.enable_dump_debug_info(
            folder, tensor_debug_mode="CONCISE_HEALTH", circular_buffer_size=1000
        )
        yield
        tf.debugging.experimental.disable_dump_debug_info()


def under(
    tool: Callable[[], contextlib.AbstractContextManager], build: Build, seconds: float
) -> Times:
    """Time a tool that changes the traced function while it is enabled."""
    model, data = compiled(build, jit_compile=False)
    other, its_data = compiled(build, jit_compile=False)
    plain, debugged = Runner(model, data, []), Runner(other, its_data, [])
    plain.seconds()  # traced without the tool
    with tool():
        return compare(plain, debugged, seconds)
