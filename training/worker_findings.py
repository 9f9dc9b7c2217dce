"""What only the records of all workers together can show."""

from collections.abc import Iterator
from pathlib import Path

from gradkeeper.callbacks import Finding
from gradkeeper.callbacks.rules import ReplicaDisagreement
from gradkeeper.callbacks.sinks import read_all_workers


def disagreements(log_dir: Path, replicas: int) -> Iterator[Finding]:
    """The replicas that differ from those of the other workers.

    While they train, each worker knows the gradients of its own replicas only.

    Args:
        log_dir: where the chief has recorded, and the others in folders of their own.
        replicas: how many there are on all workers; steps that lack some are passed over.
    """
    rule = ReplicaDisagreement()
    for window in read_all_workers(log_dir):
        if window.replica_norms.shape[1] == replicas:
            yield from rule.check(window)
