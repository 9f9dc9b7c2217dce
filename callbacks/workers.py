"""Which worker of a multi-worker training this process is, and where it writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

_FOLDER = "worker-"


@dataclass(frozen=True)
class Worker:
    """A process of a training, among all its processes.

    Attributes:
        number: 0 for the chief.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, strategy: "tf.distribute.Strategy") -> "Worker":
        """This process, under a strategy; the chief where the training is all its own."""
        if strategy.num_replicas_in_sync == 1:
            return cls()
        count = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
        if count == 1:
            return cls()
        resolver = strategy.cluster_resolver
        if resolver.task_type == "chief":
            return cls(0, count)
        has_chief = "chief" in resolver.cluster_spec().jobs
        return cls(int(resolver.task_id) + int(has_chief), count)

    @property
    def is_chief(self) -> bool:
        """Whether it writes what all workers have alike."""
        return self.number == 0

    def folder_in(self, folder: str | Path) -> Path:
        """Where it writes: the chief to the folder, any other to one of its own in it."""
        return Path(folder) if self.is_chief else Path(folder) / f"{_FOLDER}{self.number}"


def strategy_of(owner: Any) -> "tf.distribute.Strategy":
    """The strategy that a model, or the value of a Keras variable, was made under."""
    import tensorflow as tf  # late: a history is read without it

    made_under = getattr(owner, "distribute_strategy", None)
    return tf.distribute.get_strategy() if made_under is None else made_under


def folders_of_others(folder: str | Path) -> dict[int, Path]:
    """The folders that workers other than the chief have made in a folder, by their number."""
    found = {path.name.removeprefix(_FOLDER): path for path in Path(folder).glob(f"{_FOLDER}*")}
    numbered = {int(number): path for number, path in found.items() if number.isdecimal()}
    return dict(sorted(numbered.items()))
