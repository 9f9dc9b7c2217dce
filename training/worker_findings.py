"""Findings from the combined records of all workers."""

from collections.abc import Iterator
from pathlib import Path

from gradkeeper.callbacks import Finding
from gradkeeper.callbacks.rules import ReplicaDisagreement
from gradkeeper.callbacks.sinks import read_all_workers


def disagreements(log_dir: Path, replicas: int) -> Iterator[Finding]:
    """Yield findings about replicas that differ from those of the other workers.

    During training, each worker knows the gradients of its replicas only.

    Args:
        log_dir: the chief's log directory, which contains the directories of the other workers.
        replicas: number of replicas on all workers; steps without all of them are skipped.
    """
    rule = ReplicaDisagreement()
    for window in read_all_workers(log_dir):
        if window.replica_norms.shape[1] == replicas:
            yield from rule.check(window)
