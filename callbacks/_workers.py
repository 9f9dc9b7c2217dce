"""Identification of the worker process in multi-worker training, and its directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


_FOLDER = "worker-"


@dataclass(frozen=True)
class Worker:
    """Worker process of a run.

    Attributes:
        number: index of the worker; 0 for the chief.
        count: number of workers.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, strategy: "tf.distribute.Strategy | None") -> "Worker":
        """Return the worker that this process is; the chief if there is one worker."""
        if strategy is None:
            return cls()
        count = strategy.num_replicas_in_sync
        if count > 1:
            count //= len(strategy.extended.worker_devices)
        if count == 1:
            return cls()
        resolver = strategy.cluster_resolver
        if resolver.task_type == "chief":
            return cls(0, count)
        has_chief = "chief" in resolver.cluster_spec().jobs
        return cls(int(resolver.task_id) + int(has_chief), count)

    @property
    def is_chief(self) -> bool:
        """True for the chief, which writes the data that all workers share."""
        return self.number == 0

    def folder_in(self, folder: str | Path) -> Path:
        """Return the directory to write to: `folder` for the chief, else `worker-N` in it."""
        return Path(folder) if self.is_chief else Path(folder) / f"{_FOLDER}{self.number}"


def strategy_of(owner: Any) -> "tf.distribute.Strategy | None":
    """Return the strategy under which a model or variable value was created.

    None if the backend of Keras is not TensorFlow.
    """
    import keras  # imported late, because reading a history requires neither

    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    made_under = getattr(owner, "distribute_strategy", None)
    return tf.distribute.get_strategy() if made_under is None else made_under


def has_several_workers() -> bool:
    """Return True if several processes train together."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.process_count() > 1
    if backend != "tensorflow":
        return False
    import tensorflow as tf

    # Each process lists the devices of all.
    names = [device.name for device in tf.config.list_logical_devices()]
    return len({name.partition("/device:")[0] for name in names}) > 1


def folders_of_others(folder: str | Path) -> dict[int, Path]:
    """Return the subdirectories of the workers other than the chief, by worker number."""
    found = {path.name.removeprefix(_FOLDER): path for path in Path(folder).glob(f"{_FOLDER}*")}
    numbered = {int(number): path for number, path in found.items() if number.isdecimal()}
    return dict(sorted(numbered.items()))
