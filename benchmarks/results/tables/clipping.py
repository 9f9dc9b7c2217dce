"""Training with and without clipping, for a SimpleRNN on Bach's chorales."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results.cell import Cell
from results.chorales import test_loss
from results.pictures import OURS, PUBLISHED, finish, of_quantity, values
from results.pictures import figure as new_figure
from results.runs import Run, train
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES, SEEDS, CLIP = (0.03, 0.1, 0.3), (0, 1), 1.0
FREE, CLIPPED = "no clipping", f"global_clipnorm={CLIP:g}"
TEST, VALIDATION, NORM = "test NLL", "validation NLL", "largest gradient norm"
UNIT = "nats per frame"


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    for setting, clip in ((FREE, None), (CLIPPED, CLIP)):
        for rate in RATES[1:2] if setup.quick else RATES:
            runs = [_run(setup, rate, clip, seed) for seed in SEEDS]
            found = [run for run in runs if run is not None]
            if found:
                yield from _cells(found, f"SGD {rate:g}, {setting}", setup)


def _run(setup: Setup, rate: float, clip: float | None, seed: int) -> Run | None:
    size: dict[str, Any] = {"units": 200, "batch_size": 16, "epochs": 30}
    if setup.quick:
        size = {"units": 4, "batch_size": 16, "epochs": 1, "steps_per_epoch": 2}
    arguments = {
        "model": "simple_rnn",
        "task": "jsb_chorales",
        "task_options": {"split": "validation"},
        "optimizer": "sgd",
        "learning_rate": rate,
        "optimizer_options": {"momentum": 0.9},
        "global_clipnorm": clip,
        "seed": seed,
        **size,
    }
    label = f"simple_rnn-{rate:g}-{'clipped' if clip else 'free'}-seed{seed}"
    return train(setup, label, arguments)


def _cells(runs: list[Run], setting: str, setup: Setup) -> Iterator[Cell]:
    facts = [run.facts for run in runs]
    common: dict[str, Any] = {
        **facts[0],
        "model": "simple_rnn",
        "setting": setting,
        "seeds": ", ".join(each["seeds"] for each in facts),
        "seconds": sum(each["seconds"] for each in facts),
    }
    yield Cell(
        **common,
        quantity=TEST,
        unit=UNIT,
        value=float(np.mean([test_loss(r, setup) for r in runs])),
    )
    best = float(np.mean([run.best_loss for run in runs]))
    yield Cell(**common, quantity=VALIDATION, unit=UNIT, value=best)
    yield Cell(**common, quantity=NORM, value=max(run.result.largest_norm for run in runs))


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    drawn = new_figure(8, 4)
    axes = drawn.subplots()
    for setting, colour in ((FREE, PUBLISHED), (CLIPPED, OURS)):
        chosen = [cell for cell in of_quantity(cells, TEST) if cell.setting.endswith(setting)]
        rates = [float(cell.setting.split()[1].rstrip(",")) for cell in chosen]
        axes.plot(rates, values(chosen), color=colour, marker="o", label=setting)
    axes.set(xlabel="learning rate of SGD with momentum 0.9", ylabel=f"test NLL, {UNIT}")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
    axes.minorticks_off()
    finish(axes)
    return drawn


TABLE = Table(
    title="Clipping on and off",
    text=(
        "A `SimpleRNN` on the JSB chorales, SGD with momentum 0.9 at three learning rates, means "
        "of two seeds. Pascanu, Mikolov and Bengio (2013, table 1) find on three other "
        "collections of music (Piano-midi.de, Nottingham, MuseData) that clipping lowers the "
        "test NLL. Their data differ, so this table lists no published numbers."
    ),
    measure=measure,
    draw=draw,
)
