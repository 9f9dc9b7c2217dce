"""Every model at a learning rate that is too high, without and with clipping."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkeeper import zoo
from results.cell import Cell
from results.pictures import LINE, OURS, PUBLISHED, finish
from results.pictures import figure as new_figure
from results.runs import Run, train
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNING_RATE, CLIP = 3.0, 0.1
FREE, CLIPPED = "no clipping", f"global_clipnorm={CLIP:g}"
NORM, SHARE, NAN = "largest gradient norm", "clipped steps", "steps with NaN or Inf"
LOSS, BEFORE, AFTER = "loss", "half-life before", "half-life after"
SIZE: dict[str, Any] = {"units": 32, "batch_size": 32, "epochs": 1, "steps_per_epoch": 100}
QUICK: dict[str, Any] = {"units": 4, "batch_size": 4, "epochs": 1, "steps_per_epoch": 4}
QUICK_MODELS = ("simple_rnn", "gru")


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    for name in QUICK_MODELS if setup.quick else zoo.list_models():
        size = QUICK if setup.quick else SIZE
        # Both runs start from the same weights: record the gradient through time in one only.
        for setting, clip in ((FREE, None), (CLIPPED, CLIP)):
            arguments = {
                "model": name,
                **_task(name, setup.quick),
                **size,
                "optimizer": "sgd",
                "learning_rate": LEARNING_RATE,
                "global_clipnorm": clip,
                "flow": clip is not None,
            }
            run = train(setup, f"{name}-{'clipped' if clip else 'free'}-seed0", arguments)
            if run is not None:
                yield from _cells(name, setting, run)


def _task(name: str, quick: bool) -> dict[str, Any]:
    if "sequence_to_sequence" in zoo.model_info(name).tasks:
        return {"task": "reverse", "task_options": {"length": 4 if quick else 20}}
    return {"task": "temporal_order", "task_options": {"length": 10 if quick else 60}}


def _cells(name: str, setting: str, run: Run) -> Iterator[Cell]:
    norms = run.result.history.global_norm
    values = {
        NORM: run.result.largest_norm,
        NAN: 100 * float(np.mean(~np.isfinite(norms))),
        LOSS: run.result.final_loss,
    }
    if setting == CLIPPED:
        values[SHARE] = 100 * run.result.clip_fraction
        flows = run.result.flows
        for quantity, record in ((BEFORE, min(flows)), (AFTER, max(flows))):
            values[quantity] = _half_life(flows[record])
    units = {NAN: "%", SHARE: "%", BEFORE: "steps", AFTER: "steps", LOSS: "nats", NORM: ""}
    for quantity, value in values.items():
        yield Cell(
            model=name,
            setting=setting,
            quantity=quantity,
            value=value,
            unit=units[quantity],
            **run.facts,
        )


def _half_life(flow: Any) -> float:
    """Return the longest half-life of a state in the first layer: the layer's memory."""
    first = [each.half_life for each in flow if each.layer == flow.states[0].layer]
    known = [each for each in first if not math.isnan(each)]
    return max(known, default=math.nan)


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    names = list(dict.fromkeys(cell.model for cell in cells))
    drawn = new_figure(11, 1.4 + 0.2 * len(names))
    left, right = drawn.subplots(1, 2, sharey=True)
    places = {name: place for place, name in enumerate(reversed(names))}
    for setting, colour in ((FREE, PUBLISHED), (CLIPPED, OURS)):
        chosen = [cell for cell in cells if cell.setting == setting]
        norms = [cell for cell in chosen if cell.quantity == NORM and cell.value]
        rows = [places[cell.model] for cell in norms]
        left.scatter([cell.value for cell in norms], rows, s=22, color=colour, label=setting)
        bad = {cell.model for cell in chosen if cell.quantity == NAN and cell.value}
        marked = [cell for cell in norms if cell.model in bad]
        left.scatter(
            [cell.value for cell in marked], [places[cell.model] for cell in marked],
            s=90, facecolors="none", edgecolors=colour, linewidths=1.2,
            label=f"{setting}: then NaN" if marked else None,
        )  # fmt: skip
    for quantity, colour in ((BEFORE, LINE), (AFTER, OURS)):
        lives = [cell for cell in cells if cell.quantity == quantity and cell.value]
        right.scatter(
            [min(cell.value or 0, 1e4) for cell in lives], [places[cell.model] for cell in lives],
            s=22, color=colour, label=quantity.replace("half-life ", "") + " the clipped training",
        )  # fmt: skip
    left.set_yticks(list(places.values()), list(places), fontsize="small")
    left.set(xscale="log", xlabel="largest finite gradient norm", ylim=(-0.7, len(names) - 0.3))
    right.set(
        xscale="log", xlabel="half-life of the gradient, steps back in time (10⁴: does not fall)"
    )
    finish(left)
    finish(right)
    return drawn


TABLE = Table(
    title="Health of every model at a too high learning rate",
    text=(
        "Every model of the zoo learns the temporal order problem (60 steps, four classes; the "
        "encoder-decoder reverses strings of 20 digits instead) for 100 steps of plain SGD. The "
        f"learning rate of {LEARNING_RATE:g} is too high; each model trains without clipping and "
        f"with `{CLIPPED}`. The norm is the largest finite one before clipping. The half-life is "
        "the number of steps back in time after which the gradient of the loss with respect to a "
        "state of the first layer has halved, for the state with the longest half-life, before the "
        "training and after the clipped one; ∞ if it does not fall. Guessing has a loss of "
        "ln 4 = 1.386 (at least ln 10 = 2.303 for the encoder-decoder). No comparable table is "
        "published."
    ),
    measure=measure,
    draw=draw,
)
