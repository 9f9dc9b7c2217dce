"""The copying problem after a pause of 1,000 steps."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results.cell import Cell
from results.pictures import beside_published, of_quantity
from results.published import COPYING_1000
from results.runs import train_each
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS, BELOW, PARAMETERS = "cross-entropy", "share of the baseline", "parameters"
LENGTH = 1000
BASELINE = 10 * math.log(8) / (LENGTH + 20)
EPOCHS = {"orthogonal_rnn": 50, "co_rnn": 20, "simple_rnn": 30, "gru": 15, "lstm": 15}


def arguments(name: str, quick: bool = False) -> dict[str, Any]:
    """Return the arguments of the model's `Experiment`."""
    size: dict[str, Any] = {
        "units": 128,
        "batch_size": 20,
        "epochs": EPOCHS[name],
        "steps_per_epoch": 60,
    }
    if quick:
        size = {"units": 4, "batch_size": 8, "epochs": 1, "steps_per_epoch": 2}
    return {
        "model": name,
        "task": "copying",
        "task_options": {"length": 10 if quick else LENGTH},
        "optimizer": "rmsprop",
        "learning_rate": 1e-3,
        "global_clipnorm": 1.0,
        **size,
    }


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    models = list(EPOCHS)[1:3] if setup.quick else EPOCHS
    for name, run in train_each(setup, models, arguments):
        common = {"model": name, **run.facts}
        known = COPYING_1000[name].facts if name in COPYING_1000 else {}
        yield Cell(**common, quantity=LOSS, value=run.best_loss, unit="nats per step", **known)
        share = 100 * run.best_loss / (run.result.baseline or math.nan)
        yield Cell(**common, quantity=BELOW, value=share, unit="%")
        yield Cell(**common, quantity=PARAMETERS, value=run.result.parameters)


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    line = (BASELINE, "without memory: 10 ln 8 / 1020")
    label = "cross-entropy, nats per step"
    return beside_published(of_quantity(cells, LOSS), label, log=True, line=line)


TABLE = Table(
    title="Copying after 1,000 steps",
    text=(
        "Ten symbols are repeated after a pause of 1,000 steps. Without memory the cross-entropy "
        f"is 10 ln 8 / 1020 = {BASELINE:.4f} nats per step; a lower loss proves memory. The loss is"
        " that of the best epoch; an epoch has 60 train steps. The runs are shortened to some ten "
        "minutes on a CPU, and the table lists their steps: a model above the baseline has not yet "
        "learned to predict blanks, which does not measure its memory. According to the "
        "publication, gated and simple networks stay at the baseline."
    ),
    measure=measure,
    draw=draw,
)
