"""Shakespeare, nats per character."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from results.measurement import Measurement
from results.plots import MEASURED, new_figure, select, style_axes, values
from results.runs import train_each
from results.table import BenchConfig, Table

MODELS = ("simple_rnn", "lstm", "gru", "ln_lstm", "min_gru")
LOSS, PARAMETERS, TIME = "validation loss", "parameters", "time per step"
SHAKESPEARE: dict[str, Any] = {
    "task": "tiny_shakespeare",
    "task_options": {"length": 50},
    "units": 128,
    "batch_size": 50,
    "epochs": 5,
    "optimizer": "adam",
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "global_clipnorm": 1.0,
}
TEXT = """Prediction of characters of Shakespeare's plays in windows of 50, with the states set to
zero at the start of each window; five epochs. The loss is the lowest over the epochs, on the
validation split. The machine ran other work too, so the times per step are only roughly
comparable. No comparable table is published. (The entropy of single characters is 3.31 nats.)"""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    for run in train_each(config, MODELS, SHAKESPEARE):
        yield run.measurement(LOSS, run.best_loss, unit="nats per character")
        yield run.measurement(PARAMETERS, run.result.parameters)
        yield run.measurement(TIME, 1e3 * run.result.time_per_step, unit="ms")


def _draw(measurements: Sequence[Measurement]) -> Figure:
    figure = new_figure(8, 4)
    axes = figure.subplots()
    losses, times = select(measurements, LOSS), select(measurements, TIME)
    axes.scatter(values(times), values(losses), s=60, color=MEASURED, zorder=3)
    for each, x, y in zip(losses, values(times), values(losses), strict=True):
        axes.annotate(each.model, (x, y), xytext=(7, 4), textcoords="offset points")
    axes.set(xlabel="time per train step, ms", ylabel="validation loss, nats per character")
    axes.margins(x=0.15, y=0.15)
    style_axes(axes)
    return figure


TABLES = {
    "tiny_shakespeare": Table(title="Tiny Shakespeare", text=TEXT, measure=_measure, draw=_draw)
}
