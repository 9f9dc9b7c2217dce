"""The adding problem over 600 steps."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results.cell import Cell
from results.pictures import beside_published, of_quantity
from results.published import ADDING_600
from results.runs import train_each
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MSE, SOLVED, PARAMETERS = "test MSE", "steps to MSE < 0.01", "parameters"
EPOCHS = {"gru": 60, "simple_rnn": 5, "lstm": 8}
LIMIT = 0.01


def arguments(name: str, quick: bool = False) -> dict[str, Any]:
    """Return the arguments of the model's `Experiment`."""
    size: dict[str, Any] = {
        "units": 64,
        "batch_size": 32,
        "epochs": EPOCHS[name],
        "steps_per_epoch": 100,
    }
    if quick:
        size = {"units": 4, "batch_size": 8, "epochs": 2, "steps_per_epoch": 2}
    return {
        "model": name,
        "task": "adding",
        "task_options": {"length": 12 if quick else 600},
        "optimizer": "adam",
        "learning_rate": 5e-3,
        "schedule": "cosine",
        "global_clipnorm": 1.0,
        # XLA halves the time of the GRU's step on a CPU; the other models gain nothing.
        "jit_compile": name == "gru" and not quick,
        **size,
    }


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    for name, run in train_each(setup, EPOCHS, arguments):
        common = {"model": name, **run.facts}
        yield Cell(**common, quantity=MSE, value=run.best_loss, **ADDING_600[name].facts)
        step = run.first_step_below(LIMIT)
        yield Cell(**common, quantity=SOLVED, value=step)
        yield Cell(**common, quantity=PARAMETERS, value=run.result.parameters)


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    line = (1 / 6, "always predicting 1")
    return beside_published(of_quantity(cells, MSE), "mean squared error", log=True, line=line)


TABLE = Table(
    title="Adding, 600 steps",
    text=(
        "Mean squared error on 1,000 fixed sequences after the best epoch; an epoch has 100 train "
        "steps. Always predicting 1 has an error of 0.1667. The runs are shortened to some minutes "
        "on a CPU, and the table lists their steps; those of Bai and others, with models of about "
        "70,000 weights, are longer."
    ),
    measure=measure,
    draw=draw,
)
