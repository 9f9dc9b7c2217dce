"""Tools on TensorFlow that `overhead.py` compares with: lower bounds and other gradient checks."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from alternating_steps import Build, Runner, Times, compare, compiled, with_callback, with_change

ROWS = 1000  # rows of the ring buffer in the minimal monitor


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
