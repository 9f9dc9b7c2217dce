"""Counters of a gate, written in the graph and read by the host."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.ring import make_variable


@dataclass(frozen=True)
class Counts:
    """Counters of one replica: tensors in the graph, numbers on the host.

    Attributes:
        seen: number of finished steps.
        noted: number of optimizer calls recorded as bad.
        in_a_row: number of consecutive bad optimizer calls up to the last one.
        halted: 1 while the gate skips every step, 0 otherwise.
    """

    seen: Any
    noted: Any
    in_a_row: Any
    halted: Any


_STEP = np.array([1, 0, 0, 0])
_KEPT_AFTER_A_HALT = np.array([1, 1, 0, 0])


class Tally:
    """Counters in a single variable, because the host reads one variable faster than four.

    Args:
        device: device of the variable; None for TensorFlow's choice.
    """

    def __init__(self, device: str | None) -> None:
        self._counts = make_variable(np.zeros(4, np.int64), device)

    def in_graph(self) -> Counts:
        """Read the counters at this point of the step, in the graph."""
        return Counts(*tf.unstack(self._counts.read_value()))

    def write(self, counts: Counts) -> None:
        """Set all counters, in the graph."""
        fields = (counts.seen, counts.noted, counts.in_a_row, counts.halted)
        self._counts.assign(tf.stack([tf.cast(each, tf.int64) for each in fields]))

    def count_step(self) -> None:
        """Count a finished step, in the graph."""
        self._counts.assign_add(_STEP)

    def on_host(self) -> Counts:
        """Return the counters. Blocks until the running steps have finished."""
        # The raw operation is several times faster than `Variable.read_value`.
        read = tf.raw_ops.ReadVariableOp(resource=self._counts.handle, dtype=tf.int64)
        return Counts(*read.numpy().tolist())

    def resume(self) -> None:
        """Reset the consecutive bad calls and the halt."""
        self._counts.assign(self._counts * _KEPT_AFTER_A_HALT)
