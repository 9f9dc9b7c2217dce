"""Adding problem over 100 and 200 steps, with every model of the zoo."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from gradkeeper import zoo
from results.measurement import Measurement
from results.plots import LINE, MEASURED, PUBLISHED, new_figure, select, style_axes
from results.runs import train_each
from results.table import BenchConfig, Table

SOLVED, MSE = "steps to MSE < 0.01", "test MSE"
LIMIT, CAP = 0.01, 1500
ADDING: dict[str, Any] = {
    "task": "adding",
    "units": 64,
    "batch_size": 32,
    "epochs": CAP // 100,
    "steps_per_epoch": 100,
    "optimizer": "adam",
    "learning_rate": 5e-3,
    "global_clipnorm": 1.0,
}
UNSOLVED_COLOUR = "#f2c9c4"
# Best-known models first, so that a run that is stopped early has measured them.
FIRST = (
    "gru",
    "lstm",
    "simple_rnn",
    "irnn",
    "min_gru",
    "ln_lstm",
    "orthogonal_rnn",
    "lem",
    "lru",
    "ind_rnn",
    "co_rnn",
    "antisymmetric_rnn",
)
TEXT = f"""Train steps until the mean squared error on 1,000 fixed sequences is below 0.01, checked
every 100 steps; at most {CAP:,} steps. All models have the same learning rate and one seed: a
model that fails here can learn the task with another rate or more steps. Always predicting 1 has
an error of 0.1667."""


def _models() -> list[str]:
    """Return all models with a regression head, the best-known ones first."""
    able = [name for name in zoo.list_models() if "regression" in zoo.model_info(name).tasks]
    return sorted(able, key=lambda name: (FIRST.index(name) if name in FIRST else 99, name))


def _measure(config: BenchConfig, length: int) -> Iterator[Measurement]:
    arguments = {**ADDING, "task_options": {"length": length}}
    for run in train_each(config, _models(), arguments, limit=LIMIT):
        yield run.measurement(SOLVED, run.first_step_below(LIMIT))
        yield run.measurement(MSE, run.result.final_loss)


def _draw(measurements: Sequence[Measurement]) -> Figure:
    errors = {each.model: each.value or 0.0 for each in select(measurements, MSE)}

    def order(each: Measurement) -> tuple[bool, float]:
        """Order the solved ones by steps, then the others by error."""
        return (True, errors[each.model]) if each.value is None else (False, each.value)

    solved = sorted(select(measurements, SOLVED), key=order)[::-1]
    figure = new_figure(8, 1.2 + 0.2 * len(solved))
    axes = figure.subplots()
    for row, each in enumerate(solved):
        steps = each.steps or 0 if each.value is None else each.value
        colour = UNSOLVED_COLOUR if each.value is None else MEASURED
        axes.barh(row, steps, color=colour, height=0.7)
        if each.value is None:
            text = f"not solved, MSE {errors[each.model]:.3g}"
            axes.text(steps * 0.02, row, text, va="center", fontsize=7, color=PUBLISHED)
    axes.set_yticks(range(len(solved)), [each.model for each in solved], fontsize="small")
    axes.set(xlabel="train steps", ylim=(-0.6, len(solved) - 0.4))
    axes.axvline(CAP, color=LINE, linewidth=1, linestyle="--")
    style_axes(axes)
    return figure


def _table(length: int) -> Table:
    """Return the table for sequences of the given length."""
    return Table(
        title=f"Adding, {length} steps, over the zoo",
        text=TEXT,
        measure=functools.partial(_measure, length=length),
        draw=_draw,
    )


TABLES = {"adding_zoo": _table(100), "adding_zoo_200": _table(200)}
