"""All models with as many weights, on the adding problem and on Shakespeare."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.training import ExperimentConfig
from gradkeeper.training.experiment.experiment import build_model, task_of
from results.measurement import HIGHEST, LOWEST, MEDIAN, Measurement, spread
from results.plots import LINE, MEASURED, new_figure, select, style_axes
from results.runs import Run, train
from results.table import BenchConfig, Table

PARAMETERS = 150_000
RATES = (1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
RATE, TIME, WEIGHTS = "learning rate", "time per step", "parameters"
QUICK_MODELS = ("simple_rnn", "gru")
COMMON: dict[str, Any] = {
    "recipe": "none",
    "optimizer": "adam",
    "schedule": "cosine",
    "global_clipnorm": 1.0,
}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "adding": {
        "task": "adding",
        "task_options": {"length": 200},
        "batch_size": 32,
        "epochs": 10,
        "steps_per_epoch": 100,
    },
    "tiny_shakespeare": {
        "task": "tiny_shakespeare",
        "task_options": {"length": 50},
        "batch_size": 50,
        "epochs": 5,
        "steps_per_epoch": 200,
    },
}
TEXT = f"""Every model with about {PARAMETERS:,} weights: one layer where the entry does not define
more, or two if the weights of one layer grow only in proportion to its width. 1,000 steps of Adam
with cosine decay and `global_clipnorm=1`: the mean squared error on adding over 200 steps
(guessing: 0.1667), and nats per character of Shakespeare in windows of 50 (single characters:
3.31). Each model trains with the learning rates {", ".join(map(str, RATES))}; the rate with the
lowest loss for seed 0 then trains with two more seeds. The value is that of the best epoch on the
evaluation split; NaN, a cross in the picture, if no epoch has a finite loss. No recipe of a paper
is used: a model that fails here can learn the task with its recipe. The encoder-decoder has neither
task. On Shakespeare, the LSTM is behind the SimpleRNN with the rate 0.003 (1.93 and 1.77), which is
too low for it in 1,000 steps, and ahead with 0.01 (1.75 and 1.85; seed 0). The machine ran other
work too, so the times per step are only roughly comparable."""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    for task, settings in TASKS.items():
        for name in QUICK_MODELS if config.quick else _models(task):
            own = {"model": name, **COMMON, **settings}
            yield from _measure_model(config, task, {**own, **size(own, config)})


def _models(task: str) -> list[str]:
    """Return all models with a head for the task."""
    head = "regression" if task == "adding" else "language_model"
    return [name for name in zoo.list_models() if head in zoo.model_info(name).tasks]


def size(arguments: Mapping[str, Any], config: BenchConfig) -> dict[str, int]:
    """Return `units` and `num_layers` with which a model has about as many weights as all others.

    A model whose single layer has no matrix of units x units gets two layers.
    """
    settings = {**arguments, "data_dir": config.data_dir}
    task = task_of(ExperimentConfig(**settings))

    def count(**sizes: int) -> int:
        return build_model(ExperimentConfig(**{**settings, **sizes}), task, 1).count_params()

    # The number of weights is a polynomial of degree two in the width.
    widths = (16, 32, 64)
    for layers in ({}, {"num_layers": 2}):
        a, b, c = np.polyfit(widths, [count(units=units, **layers) for units in widths], 2)
        if a > 0.5:
            break
    target = 2_000 if config.quick else PARAMETERS
    return {"units": max(1, round(float(max(np.roots([a, b, c - target]).real)))), **layers}


def _measure_model(
    config: BenchConfig, task: str, arguments: Mapping[str, Any]
) -> Iterator[Measurement]:
    name = arguments["model"]

    def run(rate: float, seed: int) -> Run | None:
        chosen = {**arguments, "learning_rate": rate, "seed": seed}
        return train(config, f"{task}-{name}-{rate:g}-seed{seed}", chosen)

    first = {rate: found for rate in RATES if (found := run(rate, SEEDS[0])) is not None}
    if len(first) < len(RATES):
        return
    best = min(first, key=lambda rate: np.nan_to_num(first[rate].best_loss, nan=np.inf))
    runs = [first[best], *filter(None, (run(best, seed) for seed in SEEDS[1:]))]
    common: dict[str, Any] = {
        "setting": task,
        "seeds": ", ".join(str(each.result.config["seed"]) for each in runs),
    }
    measured = {
        **spread(each.best_loss for each in runs),
        RATE: best,
        WEIGHTS: runs[0].result.parameters,
    }
    for quantity, value in measured.items():
        yield runs[0].measurement(quantity, value, **common)
    times = [1e3 * each.result.time_per_step for each in runs]
    yield runs[0].measurement(TIME, float(np.median(times)), unit="ms", **common)


def _draw(measurements: Sequence[Measurement]) -> Figure:
    figure = new_figure(11, 10)
    for axes, task in zip(figure.subplots(1, 2), TASKS, strict=True):
        chosen = [each for each in measurements if each.setting == task]
        found = {
            quantity: {each.model: each.value or 0.0 for each in select(chosen, quantity)}
            for quantity in (LOWEST, MEDIAN, HIGHEST)
        }
        names = sorted(found[MEDIAN], key=found[MEDIAN].__getitem__, reverse=True)
        for row, name in enumerate(names):
            lowest, median, highest = (values[name] for values in found.values())
            if math.isnan(highest):
                place = axes.get_yaxis_transform()
                axes.scatter(1.0, row, marker="x", color=LINE, transform=place, clip_on=False)
                highest = median
            axes.plot([lowest, highest], [row, row], color=LINE)
            axes.scatter(median, row, s=26, color=MEASURED, zorder=3)
        axes.set_yticks(range(len(names)), names, fontsize="small")
        label = "mean squared error" if task == "adding" else "nats per character"
        axes.set(xlabel=label, title=task.replace("_", " "), ylim=(-0.6, len(names) - 0.4))
        if task == "adding":
            axes.set_xscale("log")
        style_axes(axes)
    return figure


TABLES = {
    "leaderboard": Table(
        title="All models with as many weights", text=TEXT, measure=_measure, draw=_draw
    )
}
