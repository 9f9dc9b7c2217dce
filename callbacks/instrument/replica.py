"""The replica and the graph in which code is traced, and variables outside of both."""

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Replica:
    """A replica, identified by its index among all replicas in sync.

    Attributes:
        index: 0 to `count` - 1; 0 outside a strategy.
        count: number of replicas in sync.
        device: name of the replica's device; None outside a strategy.
        local: index among the replicas of this process.
    """

    index: int
    count: int
    device: str | None
    local: int = 0

    @classmethod
    def current(cls) -> "Replica":
        """Return the replica whose step is being traced or run."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return cls(0, 1, None)
        index = int(tf.get_static_value(context.replica_id_in_sync_group))
        # The devices of this process. `context.devices` uses the index among all replicas, and
        # fails on a second worker.
        devices = context.strategy.extended.worker_devices
        local = index % len(devices)
        return cls(index, context.num_replicas_in_sync, str(devices[local]), local)

    @property
    def is_first(self) -> bool:
        """Return True for the first replica of this process, which records shared values."""
        return self.local == 0

    def home(self, *, compiled: bool) -> str | None:
        """Return the device for the replica's small variables; None for TensorFlow's choice.

        Outside a strategy, this is host memory, which can be read without waiting for a device. A
        step that XLA compiles as a whole (`compiled`) needs the variables on its own device.
        """
        return self.device if compiled or self.device else "CPU:0"


@dataclass(frozen=True)
class TraceScope:
    """Trace scope: a graph under trace, or None for eager execution."""

    graph: "weakref.ref[tf.Graph] | None"

    @classmethod
    def current(cls) -> "TraceScope":
        """Return the trace scope of the caller."""
        if tf.executing_eagerly():
            return cls(None)
        return cls(weakref.ref(tf.compat.v1.get_default_graph()))


def may_have_functions(train_step: Callable) -> bool:
    """Return True if the train step may call a `tf.function`; Keras's own `train_step` does not."""
    return getattr(train_step, "__func__", None) is not keras.Model.train_step


def make_variable(
    value: np.ndarray | Callable[[], tf.Tensor],
    device: str | None,
    shape: tf.TensorShape | None = None,
) -> tf.Variable:
    """Create a plain variable on the device (None for TensorFlow's choice).

    The shape is that of the initial value, or `shape`, which may be unknown.

    The variable is created in a separate thread, whose TensorFlow context is empty. The graph under
    trace, and a surrounding strategy, device or name scope, do not affect the variable.
    """

    def make() -> tf.Variable:
        with tf.device(device):
            return tf.Variable(value, trainable=False, shape=shape, name="gradkeeper")

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()
