"""Signal from a train step to the host."""

import tensorflow as tf


class Bell:
    """Signal that a train step sends to the host when it records a bad step.

    Without the signal, the host reads a small variable after every step, which takes about 50 to
    100 microseconds.
    """

    def __init__(self) -> None:
        self._can_ring, self._has_rung = True, True

    @property
    def may_have_rung(self) -> bool:
        """Return True if a step signalled since `be_still`, or if some step cannot signal."""
        return self._has_rung or not self._can_ring

    def cannot_ring(self) -> None:
        """Record that some step cannot signal: XLA compiles it, or another process runs it."""
        self._can_ring = False

    def be_still(self) -> None:
        """Clear the signal."""
        self._has_rung = False

    def ring(self) -> None:
        """Send the signal when the graph runs this operation."""
        if self._can_ring:
            with tf.device("CPU:0"):
                tf.numpy_function(self._ring, [], [])

    def _ring(self) -> None:
        self._has_rung = True
