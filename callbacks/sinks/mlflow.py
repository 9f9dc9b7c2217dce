"""Sink that logs to MLflow."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks._scalars import scalars_by_step
from gradkeeper.callbacks.sinks._tracker import TrackerSink
from gradkeeper.callbacks.window import Window

# Limits of an MLflow server.
_METRICS_PER_BATCH = 1000
_MAX_NAME, _MAX_TAG = 250, 5000


class MlflowSink(TrackerSink):
    """Sink that logs every recorded train step to MLflow.

    The sink logs to `mlflow.active_run()` of the thread that trains. If it is None at the start of
    training, the sink calls `mlflow.start_run`, and ends this run at the end of training.

    Metrics: those of `TensorBoardSink`, with the prefix `gradients/` instead of `train/`. Their
    step is the train step. Characters that MLflow does not allow in a name become "_".

    Findings are tags: `finding/<rule>/<layer>` is the message with the advice. The report is the
    artifact `gradients.html`.

    Args:
        **options: arguments of `mlflow.start_run`, such as `run_name`. Not used if a run is active.

    Raises:
        ImportError: if mlflow is not installed.
        TypeError: if `mlflow.start_run` does not have one of the arguments.
    """

    package = "mlflow"

    def write(self, window: Window) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        run_id, now = self._connected(), round(1000 * time.time())
        metrics = [
            Metric(_allowed(f"gradients/{name}"), value, now, step)
            for step, scalars in scalars_by_step(window)
            for name, value in scalars.items()
        ]
        for first in range(0, len(metrics), _METRICS_PER_BATCH):
            MlflowClient().log_batch(run_id, metrics[first : first + _METRICS_PER_BATCH])

    def write_finding(self, finding: Finding) -> None:
        from mlflow import MlflowClient

        name = _allowed(f"finding/{finding.rule}/{finding.layer}".rstrip("/"))
        MlflowClient().set_tag(self._connected(), name, str(finding)[:_MAX_TAG])

    def write_report(self, path: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient().log_artifact(self._connected(), str(path))

    def _active_run(self) -> Any:
        import mlflow

        run = mlflow.active_run()  # of this thread: background threads have none
        return None if run is None else run.info.run_id

    def _starter(self) -> Callable[..., Any]:
        import mlflow

        return mlflow.start_run

    def _start(self) -> Any:
        return super()._start().info.run_id

    def _finish(self, run: Any) -> None:
        from mlflow import MlflowClient

        MlflowClient().set_terminated(run)


def _allowed(name: str) -> str:
    """Return the name with "_" for characters that MLflow does not allow."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:_MAX_NAME]
