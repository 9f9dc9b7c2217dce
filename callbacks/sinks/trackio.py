"""Sink that logs to Trackio."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks._scalars import scalars_by_step
from gradkeeper.callbacks.sinks._tracker import TrackerSink
from gradkeeper.callbacks.window import Window

_LEVELS = {"error": "error", "warning": "warn", "info": "info"}


class TrackioSink(TrackerSink):
    """Sink that logs every recorded train step to Trackio.

    The sink logs to the run that the last `trackio.init` returned. If there is none at the start of
    training, the sink calls `trackio.init`, and finishes this run at the end of training.

    Metrics: those of `TensorBoardSink`, with the prefix `gradients/` instead of `train/`. Their
    step is the train step.

    Findings are alerts. The report is an artifact of the type `report`.

    Args:
        project: name of the project. Not used if a run is active.
        **options: further arguments of `trackio.init`, such as `space_id`.

    Raises:
        ImportError: if trackio is not installed.
        TypeError: if `trackio.init` does not have one of the arguments.
    """

    package = "trackio"

    def __init__(self, project: str = "gradkeeper", **options: Any) -> None:
        super().__init__(project=project, **options)

    def write(self, window: Window) -> None:
        run = self._connected()
        for step, scalars in scalars_by_step(window):
            run.log({f"gradients/{name}": value for name, value in scalars.items()}, step=step)

    def write_finding(self, finding: Finding) -> None:
        from trackio import AlertLevel

        title = f"{finding.rule} {finding.layer}".strip()
        level = AlertLevel(_LEVELS[finding.severity])
        self._connected().alert(title, str(finding), level=level, step=finding.step)

    def write_report(self, path: Path) -> None:
        run = self._connected()
        run.log_artifact(path, name=f"gradients-{run.id}", type="report")

    def _active_run(self) -> Any:
        from trackio.context_vars import current_run  # of this thread: background threads have none

        return current_run.get()

    def _starter(self) -> Callable[..., Any]:
        import trackio

        return trackio.init
