"""Sink that logs to Weights & Biases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks._scalars import scalars_by_step
from gradkeeper.callbacks.sinks._tracker import TrackerSink
from gradkeeper.callbacks.window import Window

_LEVELS = {"error": "ERROR", "warning": "WARN", "info": "INFO"}
_MAX_TITLE = 63


class WandbSink(TrackerSink):
    """Sink that logs every recorded train step to Weights & Biases.

    The sink logs to `wandb.run`. If it is None at the start of training, the sink calls
    `wandb.init`, and finishes this run at the end of training.

    Metrics: those of `TensorBoardSink`, with the prefix `gradients/` instead of `train/`. Their x
    axis is the metric `gradients/step`, the train step. The sink does not set the step of the run,
    because W&B drops values whose step is lower than that of a value logged before, for example by
    another callback.

    Findings are alerts. The report is an artifact of the type `report`.

    Args:
        **options: arguments of `wandb.init`, such as `project`. Not used if a run is active.

    Raises:
        ImportError: if wandb is not installed.
        TypeError: if `wandb.init` does not have one of the arguments.
    """

    package = "wandb"

    def write(self, window: Window) -> None:
        run = self._connected()
        for step, scalars in scalars_by_step(window):
            values = {f"gradients/{name}": value for name, value in scalars.items()}
            run.log({"gradients/step": step, **values})

    def write_finding(self, finding: Finding) -> None:
        title = f"{finding.rule} {finding.layer}".strip()[:_MAX_TITLE]
        self._connected().alert(title, str(finding), level=_LEVELS[finding.severity])

    def write_report(self, path: Path) -> None:
        run = self._connected()
        run.log_artifact(str(path), name=f"gradients-{run.id}", type="report")

    def _connected(self) -> Any:
        is_new, run = self._run is None, super()._connected()
        if is_new:
            run.define_metric("gradients/step", hidden=True)
            run.define_metric("gradients/*", step_metric="gradients/step")
        return run

    def _active_run(self) -> Any:
        import wandb

        return wandb.run

    def _starter(self) -> Callable[..., Any]:
        import wandb

        return wandb.init

    def _start(self) -> Any:
        import wandb

        mode = self._options.get("mode") or wandb.setup().settings.mode
        # `wandb.init` would ask for the key in the terminal, in which the training prints.
        if mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError(
                "W&B has no credentials. Run `wandb login`, or set WANDB_MODE=offline"
            )
        return super()._start()
