"""The adding problem over 100 steps, or another length, with every model."""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gradkeeper import zoo
from results.cell import Cell
from results.pictures import LINE, OURS, PUBLISHED, finish, of_quantity
from results.pictures import figure as new_figure
from results.runs import train_each
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOLVED, MSE = "steps to MSE < 0.01", "test MSE"
LIMIT, CAP = 0.01, 1500
UNSOLVED = "#f2c9c4"
# Best-known models first, so that a run that is stopped early has measured them.
FIRST = (
    "gru", "lstm", "simple_rnn", "irnn", "min_gru", "ln_lstm", "orthogonal_rnn", "lem", "lru",
    "ind_rnn", "co_rnn", "antisymmetric_rnn",
)  # fmt: skip
# XLA makes the time loop 2 to 3 times as fast on a CPU, but not parallel scans and random numbers.
SLOW_UNDER_XLA = ("lru", "min_gru", "min_lstm", "rg_lru", "zoneout_gru", "zoneout_lstm")


def models() -> list[str]:
    """Return all models with a regression head, the best-known ones first."""
    able = [name for name in zoo.list_models() if "regression" in zoo.model_info(name).tasks]
    return sorted(able, key=lambda name: (FIRST.index(name) if name in FIRST else 99, name))


def arguments(name: str, quick: bool = False, *, length: int = 100) -> dict[str, Any]:
    """Return the arguments of the model's `Experiment`."""
    size: dict[str, Any] = {
        "units": 64,
        "batch_size": 32,
        "epochs": CAP // 100,
        "steps_per_epoch": 100,
    }
    if quick:
        size = {"units": 4, "batch_size": 8, "epochs": 2, "steps_per_epoch": 2}
    return {
        "model": name,
        "task": "adding",
        "task_options": {"length": 6 if quick else length},
        "optimizer": "adam",
        "learning_rate": 5e-3,
        "global_clipnorm": 1.0,
        "jit_compile": not (quick or name in SLOW_UNDER_XLA),
        **size,
    }


def measure(setup: Setup, length: int) -> Iterator[Cell]:
    """See `Table`."""
    chosen = models()[:2] if setup.quick else models()
    of_length = functools.partial(arguments, length=length)
    for name, run in train_each(setup, chosen, of_length, limit=LIMIT):
        step = run.first_step_below(LIMIT)
        common = {"model": name, **run.facts}
        yield Cell(**common, quantity=SOLVED, value=step)
        yield Cell(**common, quantity=MSE, value=run.result.final_loss)


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    errors = {cell.model: cell.value or 0.0 for cell in of_quantity(cells, MSE)}
    solved = sorted(of_quantity(cells, SOLVED), key=lambda cell: _order(cell, errors))
    drawn = new_figure(8, 1.2 + 0.2 * len(solved))
    axes = drawn.subplots()
    for place, cell in enumerate(reversed(solved)):
        steps = cell.steps or 0 if cell.value is None else cell.value
        colour = UNSOLVED if cell.value is None else OURS
        axes.barh(place, steps, color=colour, height=0.7)
        if cell.value is None:
            text = f"not solved, MSE {errors[cell.model]:.3g}"
            axes.text(steps * 0.02, place, text, va="center", fontsize=7, color=PUBLISHED)
    axes.set_yticks(range(len(solved)), [cell.model for cell in reversed(solved)], fontsize="small")
    axes.set(xlabel="train steps", ylim=(-0.6, len(solved) - 0.4))
    axes.axvline(CAP, color=LINE, linewidth=1, linestyle="--")
    finish(axes)
    return drawn


def _order(cell: Cell, errors: dict[str, float]) -> tuple[bool, float]:
    if cell.value is None:
        return True, errors[cell.model]
    return False, cell.value


def table_of(length: int) -> Table:
    """Return the table for sequences of the given length."""
    return Table(
        title=f"Adding, {length} steps, over the zoo",
        text=(
            "Train steps until the mean squared error on 1,000 fixed sequences is below 0.01, "
            f"checked every 100 steps; at most {CAP:,} steps. All models have the same learning "
            "rate and one seed: a model that fails here can learn the task with another rate or "
            "more steps. Always predicting 1 has an error of 0.1667."
        ),
        measure=functools.partial(measure, length=length),
        draw=draw,
    )


TABLE = table_of(100)
