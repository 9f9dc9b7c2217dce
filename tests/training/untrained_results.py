"""Results of runs that were not trained, and printed tables."""

import math

import numpy as np
from rich.console import Console

from gradkeeper.callbacks import GradientHistory
from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.callbacks.window import Window
from gradkeeper.training import Result


def flow_of(norms):
    """Return the gradients through time of one example in one layer."""
    return GradientFlow((StateFlow("rnn", "h", np.array(norms)[:, None]),), 0.5)


def result_of(norms, losses, flows=None):
    """Return a run with a single variable that has these gradient norms."""
    count = len(norms)
    column = np.array(norms, np.float32)[:, None]
    present = np.ones((count, 1), bool)
    values = {"norm": column, "applied_norm": column}
    history = GradientHistory()
    history.append(Window(np.arange(count), ("head/kernel",), present, present, values))
    metrics = {"epoch": list(range(len(losses))), "val_loss": losses}
    metrics["step"] = [count // len(losses) * (epoch + 1) for epoch in metrics["epoch"]]
    return Result(
        run_dir="run", status="finished", config={}, metrics=metrics, history=history, findings=[],
        baseline=0.5, baseline_label="", parameters=3, time_per_step=math.nan,
        flows=flows or {},
    )  # fmt: skip


def printed(table, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
