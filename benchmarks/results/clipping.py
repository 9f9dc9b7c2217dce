"""Training with and without clipping, for a SimpleRNN on Bach's chorales."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from results.measurement import Measurement
from results.plots import MEASURED, PUBLISHED, new_figure, select, style_axes, values
from results.runs import Run, loss_on_test_split, train
from results.table import BenchConfig, Table

RATES, SEEDS, CLIP = (0.03, 0.1, 0.3), (0, 1), 1.0
FREE, CLIPPED = "no clipping", f"global_clipnorm={CLIP:g}"
TEST, VALIDATION, NORM = "test NLL", "validation NLL", "largest gradient norm"
UNIT = "nats per frame"
CHORALES: dict[str, Any] = {
    "model": "simple_rnn",
    "task": "jsb_chorales",
    "task_options": {"split": "validation"},
    "units": 200,
    "batch_size": 16,
    "epochs": 30,
    "optimizer": "sgd",
    "optimizer_options": {"momentum": 0.9},
}
TEXT = """A `SimpleRNN` on the JSB chorales, SGD with momentum 0.9 at three learning rates, means
of two seeds. Pascanu, Mikolov and Bengio (2013, table 1) find on three other collections of music
(Piano-midi.de, Nottingham, MuseData) that clipping lowers the test NLL. Their data differ, so this
table lists no published numbers."""


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    for setting, clip in ((FREE, None), (CLIPPED, CLIP)):
        for rate in RATES[1:2] if config.quick else RATES:
            of_setting = {**CHORALES, "learning_rate": rate, "global_clipnorm": clip}
            label = f"simple_rnn-{rate:g}-{'clipped' if clip else 'free'}-seed"
            trained = [train(config, f"{label}{n}", {**of_setting, "seed": n}) for n in SEEDS]
            runs = [run for run in trained if run is not None]
            if runs:
                yield from _measurements(config, runs, f"SGD {rate:g}, {setting}")


def _measurements(config: BenchConfig, runs: list[Run], setting: str) -> Iterator[Measurement]:
    norms = [run.measurement(NORM, run.result.largest_norm) for run in runs]
    common: dict[str, Any] = {
        "setting": setting,
        "seeds": ", ".join(each.seeds for each in norms),
        "seconds": sum(each.seconds or 0 for each in norms),
    }
    test = float(np.mean([loss_on_test_split(config, run) for run in runs]))
    validation = float(np.mean([run.best_loss for run in runs]))
    yield runs[0].measurement(TEST, test, unit=UNIT, **common)
    yield runs[0].measurement(VALIDATION, validation, unit=UNIT, **common)
    yield runs[0].measurement(NORM, max(run.result.largest_norm for run in runs), **common)


def _draw(measurements: Sequence[Measurement]) -> Figure:
    figure = new_figure(8, 4)
    axes = figure.subplots()
    for setting, colour in ((FREE, PUBLISHED), (CLIPPED, MEASURED)):
        chosen = [each for each in select(measurements, TEST) if each.setting.endswith(setting)]
        rates = [float(each.setting.split()[1].rstrip(",")) for each in chosen]
        axes.plot(rates, values(chosen), color=colour, marker="o", label=setting)
    axes.set(xlabel="learning rate of SGD with momentum 0.9", ylabel=f"test NLL, {UNIT}")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
    axes.minorticks_off()
    style_axes(axes)
    return figure


TABLES = {"clipping": Table(title="Clipping on and off", text=TEXT, measure=_measure, draw=_draw)}
