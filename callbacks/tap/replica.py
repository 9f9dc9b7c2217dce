"""Which replica of a `tf.distribute` strategy the code under trace belongs to."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Replica:
    """A replica, by its index among all replicas in sync.

    Attributes:
        index: 0 to `count` - 1; 0 outside a strategy.
        count: number of replicas in sync.
        device: name of its device; None outside a strategy.
        local: its index among the replicas of this process.
    """

    index: int
    count: int
    device: str | None
    local: int = 0

    @classmethod
    def current(cls) -> "Replica":
        """The replica whose step is being traced or run."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return cls(0, 1, None)
        index = int(tf.get_static_value(context.replica_id_in_sync_group))
        # Those of this process; `context.devices` counts over all, and fails on a second worker.
        devices = context.strategy.extended.worker_devices
        local = index % len(devices)
        return cls(index, context.num_replicas_in_sync, str(devices[local]), local)

    @property
    def is_first(self) -> bool:
        """Whether it is the first of this process: what all have alike, this one writes."""
        return self.local == 0

    def home(self, *, compiled: bool) -> str | None:
        """The device for small variables of the replica's; None for TensorFlow's choice.

        Outside a strategy that is host memory, where reading does not wait for a device. A step
        compiled by XLA as a whole (`compiled`) needs them on its own.
        """
        return self.device if compiled or self.device else "CPU:0"
