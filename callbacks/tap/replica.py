"""Which replica of a `tf.distribute` strategy the code under trace belongs to."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Replica:
    """A replica, by its index among all replicas in sync.

    Attributes:
        index: 0 to `count` - 1; 0 outside a strategy.
        count: number of replicas in sync.
        device: name of its first device; None outside a strategy.
    """

    index: int
    count: int
    device: str | None

    @classmethod
    def current(cls) -> "Replica":
        """The replica whose step is being traced or run."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return cls(0, 1, None)
        index = int(tf.get_static_value(context.replica_id_in_sync_group))
        return cls(index, context.num_replicas_in_sync, str(np.ravel(context.devices)[0]))

    def home(self, *, compiled: bool) -> str | None:
        """The device for small variables of the replica's; None for TensorFlow's choice.

        Outside a strategy that is host memory, where reading does not wait for a device. A step
        compiled by XLA as a whole (`compiled`) needs them on its own.
        """
        return self.device if compiled or self.device else "CPU:0"
