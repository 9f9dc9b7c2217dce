"""Shakespeare, nats per character."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results.cell import Cell
from results.pictures import OURS, finish, of_quantity, values
from results.pictures import figure as new_figure
from results.runs import train_each
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = ("simple_rnn", "lstm", "gru", "ln_lstm", "min_gru")
LOSS, PARAMETERS, TIME = "validation loss", "parameters", "time per step"


def arguments(name: str, quick: bool = False) -> dict[str, Any]:
    """Return the arguments of the model's `Experiment`."""
    size: dict[str, Any] = {"units": 128, "batch_size": 50, "epochs": 5}
    if quick:
        size = {"units": 4, "batch_size": 4, "epochs": 1, "steps_per_epoch": 4}
    return {
        "model": name,
        "task": "tiny_shakespeare",
        "task_options": {"length": 10 if quick else 50},
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "global_clipnorm": 1.0,
        **size,
    }


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    for name, run in train_each(setup, MODELS[1:3] if setup.quick else MODELS, arguments):
        result = run.result
        common = {"model": name, **run.facts}
        yield Cell(**common, quantity=LOSS, value=run.best_loss, unit="nats per character")
        yield Cell(**common, quantity=PARAMETERS, value=result.parameters)
        yield Cell(**common, quantity=TIME, value=1e3 * result.time_per_step, unit="ms")


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    drawn = new_figure(8, 4)
    axes = drawn.subplots()
    losses, times = of_quantity(cells, LOSS), of_quantity(cells, TIME)
    axes.scatter(values(times), values(losses), s=60, color=OURS, zorder=3)
    for cell, x, y in zip(losses, values(times), values(losses), strict=True):
        axes.annotate(cell.model, (x, y), xytext=(7, 4), textcoords="offset points")
    axes.set(xlabel="time per train step, ms", ylabel="validation loss, nats per character")
    axes.margins(x=0.15, y=0.15)
    finish(axes)
    return drawn


TABLE = Table(
    title="Tiny Shakespeare",
    text=(
        "Prediction of characters of Shakespeare's plays in windows of 50, with the states set to "
        "zero at the start of each window; five epochs. The loss is the lowest over the epochs, on "
        "the validation split. The machine ran other work too, so the times per step are only "
        "roughly comparable. No comparable table is published. (The entropy of single characters "
        "is 3.31 nats.)"
    ),
    measure=measure,
    draw=draw,
)
