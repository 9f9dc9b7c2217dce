"""What a step tells the host as soon as there is something to read."""

import tensorflow as tf


class Bell:
    """Rung from inside a train step, so that the host need not look after every one.

    A look, the reading of one small variable, takes some 50 to 100 microseconds between two steps.
    """

    def __init__(self) -> None:
        self._can_ring, self._has_rung = True, True

    @property
    def may_have_rung(self) -> bool:
        """Whether it was rung since `be_still`; always, if some step cannot ring it."""
        return self._has_rung or not self._can_ring

    def cannot_ring(self) -> None:
        """There is a step that cannot: one that XLA compiles, or that runs in another process."""
        self._can_ring = False

    def be_still(self) -> None:
        """What has happened so far is about to be read."""
        self._has_rung = False

    def ring(self) -> None:
        """There is something to read; in the graph, where this comes to be run."""
        if self._can_ring:
            with tf.device("CPU:0"):
                tf.numpy_function(self._ring, [], [])

    def _ring(self) -> None:
        self._has_rung = True
