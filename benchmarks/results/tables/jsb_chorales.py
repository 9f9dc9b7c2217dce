"""Bach's chorales, nats per frame."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results.cell import Cell
from results.chorales import test_loss
from results.pictures import beside_published, of_quantity
from results.published import JSB_CHORALES
from results.runs import train_each
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEST, VALIDATION, PARAMETERS = "test NLL", "validation NLL", "parameters"
UNIT = "nats per frame"


def arguments(name: str, quick: bool = False) -> dict[str, Any]:
    """Return the arguments of the model's `Experiment`."""
    size: dict[str, Any] = {"units": 200, "batch_size": 8, "epochs": 80}
    if quick:
        size = {"units": 4, "batch_size": 16, "epochs": 2, "steps_per_epoch": 2}
    return {
        "model": name,
        "task": "jsb_chorales",
        "task_options": {"split": "validation"},
        "model_options": {"dropout": 0.2},
        "optimizer": "adam",
        "learning_rate": 4e-3,
        "schedule": "cosine",
        "global_clipnorm": 1.0,
        **size,
    }


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    for name, run in train_each(setup, JSB_CHORALES, arguments):
        common = {"model": name, **run.facts}
        loss, known = test_loss(run, setup), JSB_CHORALES[name].facts
        yield Cell(**common, quantity=TEST, value=loss, unit=UNIT, **known)
        yield Cell(**common, quantity=VALIDATION, value=run.best_loss, unit=UNIT)
        yield Cell(**common, quantity=PARAMETERS, value=run.result.parameters)


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    return beside_published(of_quantity(cells, TEST), "test NLL, nats per frame")


TABLE = Table(
    title="JSB chorales",
    text=(
        "Prediction of the next frame of 88 keys in Bach's chorales, with the split of "
        "Boulanger-Lewandowski and others (2012). The validation split selects the epoch, and the "
        "test split evaluates its weights. Bai and others use models of about 300,000 weights."
    ),
    measure=measure,
    draw=draw,
)
