"""Largest learning rate at which each model still learns, without and with clipping."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import gradient_flow
from gradkeeper.training import ExperimentConfig, Task
from gradkeeper.training.experiment.experiment import build_model, task_of
from results.finished_runs import FinishedRuns
from results.measurement import Measurement
from results.plots import LINE, MEASURED, PUBLISHED, new_figure, select, style_axes
from results.runs import is_faster_under_xla
from results.table import BenchConfig, Table

RATES = tuple(2.0**power for power in range(5, -8, -1))
CLIPS = (None, 10.0, 1.0, 0.1)
SEEDS = (0, 1, 2)
STEPS, BATCH, UNITS, LENGTH, DIGITS = 300, 32, 32, 20, 5
BETTER = 0.95  # share of the loss of guessing that a trained model must be below
FLOW_EXAMPLES = 32
SETTINGS = {"units": UNITS, "batch_size": BATCH, "steps": STEPS, "length": LENGTH}
DESCRIPTION = f"{UNITS} units; sgd; batches of {BATCH}; {STEPS} steps; length {LENGTH}"
BEFORE, AFTER = "half-life before", "half-life after"
QUICK_MODELS = ("simple_rnn", "gru")
TEXT = f"""Every model learns the temporal order problem ({LENGTH} steps, four classes; the
encoder-decoder reverses strings of {DIGITS} digits instead) for {STEPS} steps of plain SGD with
batches of {BATCH} and {UNITS} units. The table shows the largest learning rate, on a grid of factor
two from {RATES[-1]:g} to {RATES[0]:g}, at which the training stays finite and ends below
{100 * BETTER:.0f} % of the loss of guessing, without clipping and with three limits of
`global_clipnorm`: the median of three seeds; – if no rate does. The half-life is the number of
steps back in time after which the gradient of the loss with respect to a state of the first layer
has halved, for the state with the longest half-life, before the training and after that with
`global_clipnorm=1` and its largest rate for seed 0; ∞ if it does not fall. No comparable table is
published."""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    kept = FinishedRuns(config.finished or config.runs / "finished.jsonl")
    for name in QUICK_MODELS if config.quick else zoo.list_models():
        found = kept.find(name, SETTINGS)
        if found is None:
            if config.collect:
                continue
            config.print(f"{name}: training")
            found = measure_model(name, quick=config.quick, data_dir=config.data_dir)
            kept.add(name, SETTINGS, found)
        yield from _measurements(name, found)


def measure_model(name: str, *, quick: bool = False, data_dir: Any = None) -> dict[str, Any]:
    """Return the largest rates by clip limit, one per seed, and the half-lives."""
    seeds, steps = (SEEDS[:1], 3) if quick else (SEEDS, STEPS)
    rates = RATES[:2] if quick else RATES
    trials = [Trial(name, seed, steps, data_dir) for seed in seeds]
    largest: dict[str, list[float | None]] = {}
    for clip in CLIPS:
        model = trials[0].model(clip)
        largest[_heading(clip)] = [trial.largest_rate(model, rates) for trial in trials]
        if clip == 1.0:
            after = trials[0].half_life_after(model, largest[_heading(clip)][0])
    return {"rates": largest, "before": trials[0].half_life(trials[0].start), "after": after}


class Trial:
    """Data and initial weights of one model and one seed.

    Args:
        name: name of the entry.
        seed: seed of weights and batches.
        steps: number of train steps.
        data_dir: data folder of tensorflow-datasets.
    """

    def __init__(self, name: str, seed: int, steps: int, data_dir: Any) -> None:
        is_decoder = "sequence_to_sequence" in zoo.model_info(name).tasks
        self._config: dict[str, Any] = {
            "model": name,
            "task": "reverse" if is_decoder else "temporal_order",
            "task_options": {"length": DIGITS if is_decoder else LENGTH},
            "recipe": "none",
            "units": UNITS,
            "optimizer": "sgd",
            "batch_size": BATCH,
            "seed": seed,
            "data_dir": data_dir,
        }
        self._config["jit_compile"] = is_faster_under_xla(self._config)
        config = ExperimentConfig(**self._config)
        keras.utils.set_random_seed(seed)
        self.task: Task = task_of(config)
        self.start = build_model(config, self.task, steps)
        self.weights = self.start.get_weights()
        self.batches = list(self.task.train_dataset(BATCH, endless=True).take(steps))
        self.evaluation = self.task.evaluation_dataset(250)

    def model(self, clip: float | None) -> keras.Model:
        """Return a compiled model that clips the gradient."""
        config = ExperimentConfig(**self._config, global_clipnorm=clip)
        return build_model(config, self.task, 1)

    def largest_rate(self, model: keras.Model, rates: Sequence[float]) -> float | None:
        """Return the first of the falling rates with which the model learns; None if none does."""
        limit = BETTER * self.task.baseline
        return next((rate for rate in rates if self.loss_after(model, rate) < limit), None)

    def loss_after(self, model: keras.Model, rate: float) -> float:
        """Train from the initial weights; return the loss on the evaluation split, or infinity."""
        model.set_weights(self.weights)
        model.reset_metrics()
        model.optimizer.learning_rate.assign(rate)
        for number, batch in enumerate(self.batches):
            loss = float(model.train_on_batch(*batch, return_dict=True)["loss"])
            if number % 50 == 0 and not math.isfinite(loss):
                return math.inf
        loss = model.evaluate(self.evaluation, verbose=0, return_dict=True)["loss"]
        return loss if math.isfinite(loss) else math.inf

    def half_life(self, model: keras.Model) -> float:
        """Return the longest half-life of a state of the first layer."""
        inputs, targets, *_ = next(iter(self.task.train_dataset(FLOW_EXAMPLES)))
        flow = gradient_flow(model, inputs, targets)
        first = [each.half_life for each in flow if each.layer == flow.states[0].layer]
        known = [each for each in first if not math.isnan(each)]
        return max(known, default=math.nan)

    def half_life_after(self, model: keras.Model, rate: float | None) -> float:
        """Return the half-life after training with `rate`; NaN without one."""
        if rate is None:
            return math.nan
        self.loss_after(model, rate)
        return self.half_life(model)


def _heading(clip: float | None) -> str:
    return "no clipping" if clip is None else f"global_clipnorm={clip:g}"


def _measurements(name: str, found: dict[str, Any]) -> Iterator[Measurement]:
    common: dict[str, Any] = {"model": name, "seeds": "0, 1, 2", "settings": DESCRIPTION}
    for heading, rates in found["rates"].items():
        median = float(np.median([rate or 0.0 for rate in rates]))
        yield Measurement(**common, quantity=heading, value=median or None)
    for quantity, value in ((BEFORE, found["before"]), (AFTER, found["after"])):
        known = None if math.isnan(value) else value
        yield Measurement(**common, quantity=quantity, value=known, unit="steps")


def _draw(measurements: Sequence[Measurement]) -> Figure:
    names = list(dict.fromkeys(each.model for each in measurements))
    rows = {name: row for row, name in enumerate(reversed(names))}
    figure = new_figure(11, 1.4 + 0.24 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    colours = (PUBLISHED, LINE, "#90a4ae", MEASURED)
    for number, (clip, marker, colour) in enumerate(zip(CLIPS, "o^sD", colours, strict=True)):
        # Equal rates of a model are drawn one above the other.
        shifted = {name: row + 0.24 - 0.16 * number for name, row in rows.items()}
        _dots(left, select(measurements, _heading(clip)), shifted, marker, colour, _heading(clip))
    _dots(right, select(measurements, BEFORE), rows, "o", LINE, "before the training")
    _dots(right, select(measurements, AFTER), rows, "o", MEASURED, "after the training")
    left.set_yticks(list(rows.values()), list(rows), fontsize="small")
    left.set_xscale("log", base=2)
    left.set(xlabel="largest learning rate that learns", ylim=(-0.7, len(names) - 0.3))
    right.set(
        xscale="log", xlabel="half-life of the gradient, steps back in time (10⁴: does not fall)"
    )
    style_axes(left)
    style_axes(right)
    return figure


def _dots(
    axes: Any,
    chosen: Sequence[Measurement],
    rows: Mapping[str, float],
    marker: str,
    colour: str,
    label: str,
) -> None:
    found = [each for each in chosen if each.value]
    x = [min(each.value or 0, 1e4) for each in found]
    y = [rows[each.model] for each in found]
    axes.scatter(x, y, s=26, marker=marker, color=colour, label=label)


TABLES = {
    "stability": Table(
        title="Largest learning rate of every model", text=TEXT, measure=_measure, draw=_draw
    )
}
