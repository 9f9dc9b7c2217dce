"""Directory of Parquet parts that grows as a training's."""

import dataclasses

import numpy as np
from histories import VARIABLES, window

from gradkeeper.callbacks._workers import Worker
from gradkeeper.callbacks.sinks import ParquetSink


class GrowingRun:
    """Parquet parts of a run whose norm in step n is `scale * (n + 1)` for each variable."""

    def __init__(self, log_dir, *, worker=0, variables=VARIABLES):
        self.sink = ParquetSink(Worker(worker, 9).folder_in(log_dir))
        self.worker, self.variables = worker, variables

    def write(self, first, end, *, scale=1.0, replica_norm=None, losses=None):
        """Record the steps from `first` to before `end` as one part."""
        steps = np.arange(first, end)
        norms = np.repeat(scale * (steps + 1.0)[:, None], len(self.variables), axis=1)
        replicas = None if replica_norm is None else np.full(norms[:, None].shape, replica_norm)
        part = window(
            norms, first=first, variables=self.variables, replica_norms=replicas,
            scalars={"loss": 1 / (steps + 1.0) if losses is None else losses},
        )  # fmt: skip
        self.sink.write(dataclasses.replace(part, first_replica=self.worker))

    def resume(self, step):
        """Remove the rows from `step` on, as a resumed run does."""
        list(self.sink.truncate_from(step))
