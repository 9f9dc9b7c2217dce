"""Every model at a learning rate that is too high, without and with clipping."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gradkeeper import zoo
from results.measurement import Measurement
from results.plots import LINE, MEASURED, PUBLISHED, new_figure, select, style_axes
from results.runs import Run, train
from results.table import BenchConfig, Table

LEARNING_RATE, CLIP = 3.0, 0.1
FREE, CLIPPED = "no clipping", f"global_clipnorm={CLIP:g}"
NORM, SHARE, NAN = "largest gradient norm", "clipped steps", "steps with NaN or Inf"
LOSS, BEFORE, AFTER = "loss", "half-life before", "half-life after"
QUICK_MODELS = ("simple_rnn", "gru")
HEALTH: dict[str, Any] = {
    "units": 32,
    "batch_size": 32,
    "epochs": 1,
    "steps_per_epoch": 100,
    "optimizer": "sgd",
    "learning_rate": LEARNING_RATE,
}
TEXT = f"""Every model of the zoo learns the temporal order problem (60 steps, four classes; the
encoder-decoder reverses strings of 20 digits instead) for 100 steps of plain SGD. The learning
rate of {LEARNING_RATE:g} is too high; each model trains without clipping and with `{CLIPPED}`. The
norm is the largest finite one before clipping. The half-life is the number of steps back in time
after which the gradient of the loss with respect to a state of the first layer has halved, for the
state with the longest half-life, before the training and after the clipped one; ∞ if it does not
fall. Guessing has a loss of ln 4 = 1.386 (at least ln 10 = 2.303 for the encoder-decoder). No
comparable table is published."""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    for name in QUICK_MODELS if config.quick else zoo.list_models():
        # Both runs start from the same weights: record the gradient through time in one only.
        for setting, clip in ((FREE, None), (CLIPPED, CLIP)):
            label = f"{name}-{'clipped' if clip else 'free'}-seed0"
            clipping = {"global_clipnorm": clip, "flow": clip is not None}
            run = train(config, label, {"model": name, **_task(name), **HEALTH, **clipping})
            if run is not None:
                yield from _measurements(run, setting)


def _task(name: str) -> dict[str, Any]:
    if "sequence_to_sequence" in zoo.model_info(name).tasks:
        return {"task": "reverse", "task_options": {"length": 20}}
    return {"task": "temporal_order", "task_options": {"length": 60}}


def _measurements(run: Run, setting: str) -> Iterator[Measurement]:
    result = run.result
    nonfinite = 100 * float(np.mean(~np.isfinite(result.history.global_norm)))
    measured = [
        (NORM, result.largest_norm, ""),
        (NAN, nonfinite, "%"),
        (LOSS, result.final_loss, "nats"),
    ]
    if setting == CLIPPED:
        flows = result.flows
        measured += [
            (SHARE, 100 * result.clip_fraction, "%"),
            (BEFORE, _half_life(flows[min(flows)]), "steps"),
            (AFTER, _half_life(flows[max(flows)]), "steps"),
        ]
    for quantity, value, unit in measured:
        yield run.measurement(quantity, value, setting=setting, unit=unit)


def _half_life(flow: Any) -> float:
    """Return the longest half-life of a state in the first layer: the layer's memory."""
    first = [each.half_life for each in flow if each.layer == flow.states[0].layer]
    known = [each for each in first if not math.isnan(each)]
    return max(known, default=math.nan)


def _draw(measurements: Sequence[Measurement]) -> Figure:
    names = list(dict.fromkeys(each.model for each in measurements))
    figure = new_figure(11, 1.4 + 0.2 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = {name: row for row, name in enumerate(reversed(names))}
    for setting, colour in ((FREE, PUBLISHED), (CLIPPED, MEASURED)):
        chosen = [each for each in measurements if each.setting == setting]
        norms = [each for each in select(chosen, NORM) if each.value]
        x, y = [each.value for each in norms], [rows[each.model] for each in norms]
        left.scatter(x, y, s=22, color=colour, label=setting)
        bad = {each.model for each in select(chosen, NAN) if each.value}
        marked = [each for each in norms if each.model in bad]
        left.scatter(
            [each.value for each in marked],
            [rows[each.model] for each in marked],
            s=90,
            facecolors="none",
            edgecolors=colour,
            linewidths=1.2,
            label=f"{setting}: then NaN" if marked else None,
        )
    for quantity, colour in ((BEFORE, LINE), (AFTER, MEASURED)):
        lives = [each for each in select(measurements, quantity) if each.value]
        right.scatter(
            [min(each.value or 0, 1e4) for each in lives],
            [rows[each.model] for each in lives],
            s=22,
            color=colour,
            label=quantity.replace("half-life ", "") + " the clipped training",
        )
    left.set_yticks(list(rows.values()), list(rows), fontsize="small")
    left.set(xscale="log", xlabel="largest finite gradient norm", ylim=(-0.7, len(names) - 0.3))
    right.set(
        xscale="log", xlabel="half-life of the gradient, steps back in time (10⁴: does not fall)"
    )
    style_axes(left)
    style_axes(right)
    return figure


TABLES = {
    "health": Table(
        title="Health of every model at a too high learning rate",
        text=TEXT,
        measure=_measure,
        draw=_draw,
    )
}
