"""What a gate counts in the graph, and the host reads after every step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.ring import make_variable


@dataclass(frozen=True)
class Counts:
    """Of one replica; tensors in the graph, numbers on the host.

    Attributes:
        seen: steps that came to their end.
        noted: calls of an optimizer that were noted as bad.
        in_a_row: how many of the last ones were bad without one between them that was not.
        halted: 1 while every step is refused, 0 otherwise.
    """

    seen: Any
    noted: Any
    in_a_row: Any
    halted: Any


_STEP = np.array([1, 0, 0, 0])
_KEPT_AFTER_A_HALT = np.array([1, 1, 0, 0])


class Tally:
    """The counts in one variable: reading four took the host longer than all else that it does.

    Args:
        device: where it lies; None for TensorFlow's choice.
    """

    def __init__(self, device: str | None) -> None:
        self._counts = make_variable(np.zeros(4, np.int64), device)

    def in_graph(self) -> Counts:
        """The counts as they are at this point of the step."""
        return Counts(*tf.unstack(self._counts.read_value()))

    def write(self, counts: Counts) -> None:
        """Sets all counts, in the graph."""
        fields = (counts.seen, counts.noted, counts.in_a_row, counts.halted)
        self._counts.assign(tf.stack([tf.cast(each, tf.int64) for each in fields]))

    def count_step(self) -> None:
        """A step has come to its end; in the graph."""
        self._counts.assign_add(_STEP)

    def on_host(self) -> Counts:
        """The counts; waits for the steps under way."""
        # Straight to the operation: the variable's own way takes several times as long.
        read = tf.raw_ops.ReadVariableOp(resource=self._counts.handle, dtype=tf.int64)
        return Counts(*read.numpy().tolist())

    def resume(self) -> None:
        """Nothing was bad in a row, and no step is refused for that."""
        self._counts.assign(self._counts * _KEPT_AFTER_A_HALT)
