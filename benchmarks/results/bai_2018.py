"""Adding, copying and Bach's chorales, compared with numbers of Bai and others (2018)."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from results.measurement import Measurement
from results.plots import plot_with_published
from results.runs import Run, loss_on_test_split, train_each
from results.table import BenchConfig, Table

BAI = (
    "S. Bai, J. Z. Kolter, V. Koltun, An empirical evaluation of generic convolutional and "
    "recurrent networks for sequence modeling, 2018, table 1"
)
PUBLISHED_ADDING: dict[str, Any] = {"gru": 5.3e-5, "lstm": 0.164, "simple_rnn": 0.177}
# The loss of a network without memory: 10 ln 8 / 1020.
PUBLISHED_COPYING = {"lstm": 0.0204, "gru": 0.0204, "simple_rnn": 0.0204}
PUBLISHED_CHORALES = {"gru": 8.43, "lstm": 8.45, "simple_rnn": 8.91}

PARAMETERS = "parameters"
MSE, SOLVED, LIMIT = "test MSE", "steps to MSE < 0.01", 0.01
CROSS_ENTROPY, SHARE, PAUSE = "cross-entropy", "share of the baseline", 1000
COPYING_BASELINE = 10 * math.log(8) / (PAUSE + 20)
TEST, VALIDATION, NATS = "test NLL", "validation NLL", "nats per frame"

ADDING: dict[str, Any] = {
    "task": "adding",
    "task_options": {"length": 600, "variant": "bai"},
    "units": 64,
    "batch_size": 32,
    "steps_per_epoch": 100,
    "optimizer": "adam",
    "learning_rate": 5e-3,
    "schedule": "cosine",
    "global_clipnorm": 1.0,
}
ADDING_MODELS = {
    "gru": {"epochs": 60},
    "simple_rnn": {"epochs": 5},
    "lstm": {"epochs": 8},
}
COPYING: dict[str, Any] = {
    "task": "copying",
    "task_options": {"length": PAUSE, "variant": "bai"},
    "units": 128,
    "batch_size": 20,
    "steps_per_epoch": 60,
    "optimizer": "rmsprop",
    "learning_rate": 1e-3,
    "global_clipnorm": 1.0,
}
COPYING_EPOCHS = {"orthogonal_rnn": 50, "co_rnn": 20, "simple_rnn": 30, "gru": 15, "lstm": 15}
CHORALES: dict[str, Any] = {
    "task": "jsb_chorales",
    "task_options": {"split": "validation"},
    "units": 200,
    "batch_size": 8,
    "epochs": 80,
    "model_options": {"dropout": 0.2},
    "optimizer": "adam",
    "learning_rate": 4e-3,
    "schedule": "cosine",
    "global_clipnorm": 1.0,
}
ADDING_TEXT = """Mean squared error on 1,000 fixed sequences after the best epoch; an epoch has 100
train steps. Always predicting 1 has an error of 0.1667. The runs are shortened to some minutes on
a CPU, and the table lists their steps; those of Bai and others, with models of about 70,000
weights, are longer."""
COPYING_TEXT = f"""Ten symbols are repeated after a pause of 1,000 steps. Without memory the
cross-entropy is 10 ln 8 / 1020 = {COPYING_BASELINE:.4f} nats per step; a lower loss proves memory.
The loss is that of the best epoch; an epoch has 60 train steps. The runs are shortened to some ten
minutes on a CPU, and the table lists their steps: a model above the baseline has not yet learned
to predict blanks, which does not measure its memory. According to the publication, gated and
simple networks stay at the baseline."""
CHORALES_TEXT = """Prediction of the next frame of 88 keys in Bach's chorales, with the split of
Boulanger-Lewandowski and others (2012). The validation split selects the epoch, and the test split
evaluates its weights. Bai and others use models of about 300,000 weights."""


def _measure_adding(config: BenchConfig) -> Iterator[Measurement]:
    for run in train_each(config, ADDING_MODELS, ADDING, of_model=ADDING_MODELS):
        yield run.measurement(MSE, run.best_loss, **_published(PUBLISHED_ADDING, run))
        yield run.measurement(SOLVED, run.first_step_below(LIMIT))
        yield run.measurement(PARAMETERS, run.result.parameters)


def _measure_copying(config: BenchConfig) -> Iterator[Measurement]:
    epochs = {name: {"epochs": number} for name, number in COPYING_EPOCHS.items()}
    for run in train_each(config, epochs, COPYING, of_model=epochs):
        loss, known = run.best_loss, _published(PUBLISHED_COPYING, run)
        yield run.measurement(CROSS_ENTROPY, loss, unit="nats per step", **known)
        yield run.measurement(SHARE, 100 * loss / (run.result.baseline or math.nan), unit="%")
        yield run.measurement(PARAMETERS, run.result.parameters)


def _measure_chorales(config: BenchConfig) -> Iterator[Measurement]:
    for run in train_each(config, PUBLISHED_CHORALES, CHORALES):
        loss, known = loss_on_test_split(config, run), _published(PUBLISHED_CHORALES, run)
        yield run.measurement(TEST, loss, unit=NATS, **known)
        yield run.measurement(VALIDATION, run.best_loss, unit=NATS)
        yield run.measurement(PARAMETERS, run.result.parameters)


def _published(numbers: Mapping[str, float], run: Run) -> dict[str, Any]:
    known = numbers.get(run.result.config["model"])
    return {} if known is None else {"published": known, "source": BAI}


TABLES = {
    "adding_600": Table(
        title="Adding, 600 steps",
        text=ADDING_TEXT,
        measure=_measure_adding,
        draw=functools.partial(
            plot_with_published,
            quantity=MSE,
            label="mean squared error",
            log=True,
            line=(1 / 6, "always predicting 1"),
        ),
    ),
    "copying_1000": Table(
        title="Copying after 1,000 steps",
        text=COPYING_TEXT,
        measure=_measure_copying,
        draw=functools.partial(
            plot_with_published,
            quantity=CROSS_ENTROPY,
            label="cross-entropy, nats per step",
            log=True,
            line=(COPYING_BASELINE, "without memory: 10 ln 8 / 1020"),
        ),
    ),
    "jsb_chorales": Table(
        title="JSB chorales",
        text=CHORALES_TEXT,
        measure=_measure_chorales,
        draw=functools.partial(plot_with_published, quantity=TEST, label="test NLL, " + NATS),
    ),
}
