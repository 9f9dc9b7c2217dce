"""Training progress on the terminal, and the time per train step."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from gradkeeper.callbacks import Finding, GradientMonitor

# Reading a loss waits for the device, and a person cannot read more frequent updates.
_SECONDS_BETWEEN_READINGS = 0.25
_SHOWN = {"loss": "loss", "val_loss": "validation loss", "grad_norm": "grad_norm"}


class TrainingProgress(keras.callbacks.Callback):
    """Show epoch, loss, gradient norm, remaining time, and each finding when it is made.

    Shows a progress bar on a terminal and one line per epoch elsewhere. Use it as a context manager
    around `fit`: `fit` does not notify callbacks of an exception, and the terminal must be
    restored.

    Args:
        monitor: the monitor attached to the same `fit`, before this callback. Turn off its own
            printing (`verbose=0`).
        title: title of the training.
        first_epoch: the epoch at which this training starts.
        console: the console to print to; standard output by default.
    """

    def __init__(
        self,
        monitor: GradientMonitor,
        title: str,
        *,
        first_epoch: int = 0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._title = title
        self._first_epoch = first_epoch
        self._console = console or Console(highlight=False)
        self._told: set[tuple[str, str]] = set()
        self._bar = _bar(self._console)
        self._task: TaskID | None = None
        self._epoch = first_epoch
        self._read_at = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._bar.start()

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._console.is_terminal:
            total = self.params["epochs"] * self.params["steps"]
            done = self._first_epoch * self.params["steps"]
            self._task = self._bar.add_task(self._title, total=total, completed=done, state="…")
        else:
            title = f"{self._title}: {self.model.count_params():,} parameters"
            self._console.print(title, markup=False, soft_wrap=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._task is None or time.perf_counter() - self._read_at < _SECONDS_BETWEEN_READINGS:
            return
        norms = self._monitor.history.since(-1).global_norm
        seen = dict(logs or {}) | ({"grad_norm": norms[-1]} if len(norms) else {})
        completed = self._epoch * self.params["steps"] + batch + 1
        self._bar.update(self._task, completed=completed, state=self._state(seen))
        self._tell_findings()
        self._read_at = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell_findings()
        state = self._state(logs or {})
        if self._task is not None:
            completed = (epoch + 1) * self.params["steps"]
            self._bar.update(self._task, completed=completed, state=state)
        else:
            seconds = time.perf_counter() - self._began
            self._console.print(f"  {state}  {seconds:.1f} s", soft_wrap=True, markup=False)

    def _state(self, logs: dict[str, Any]) -> str:
        numbers = "  ".join(
            f"{text} {float(logs[name]):.3g}" for name, text in _SHOWN.items() if name in logs
        )
        return f"epoch {self._epoch + 1}/{self.params['epochs']}  {numbers}"

    def _tell_findings(self) -> None:
        for finding in self._monitor.findings:
            key = finding.rule, finding.layer
            if key not in self._told:
                self._told.add(key)
                print_finding(self._bar.console, finding)


def print_finding(console: Console, finding: Finding) -> None:
    """Print a finding: a coloured heading, the message and the advice."""
    colour = {"error": "red", "warning": "yellow"}.get(finding.severity, "blue")
    place = f" in {finding.layer}" if finding.layer else ""
    heading = f"  ▲ {finding.rule} at step {finding.step}{place}"
    console.print(heading, markup=False, style=colour)
    console.print(f"    {finding.message}", markup=False, style="default")
    console.print(f"    {finding.advice}", markup=False, style="dim")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TimeRemainingColumn(
            compact=True, elapsed_when_finished=True, table_column=Column(min_width=5)
        ),
        TextColumn("{task.fields[state]}", markup=False),
        console=console,
    )


class StepTimer(keras.callbacks.Callback):
    """Measure wall time per train step, without tracing, validation and epoch-end callbacks.

    The first execution of each epoch is excluded, because it includes tracing and the filling of
    input buffers. It is included if an epoch has a single execution.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        self._steps = 0
        self._first = self._last = (0.0, -1)

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds per train step; NaN before the end of the first epoch."""
        return self._seconds / self._steps if self._steps else float("nan")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = self._last = (time.perf_counter(), -1)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        begun = self._last[1] >= 0
        self._last = (time.perf_counter(), batch)
        if not begun:
            self._started, self._first = self._first, self._last

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        single = self._last == self._first
        since, before = self._started if single else self._first
        until, last = self._last
        self._seconds += until - since
        self._steps += last - before
