"""Healthy trainings with one bad batch at a known step."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.faults import Distance, masked_mean_error, unguarded_crossentropy
from injection.healthy import CLASSES
from injection.run import Run, Training

AFTER_A_BLOW = frozenset({"spike", "exploding", "update_ratio", "dead", "vanishing"})


def faulty_data() -> list[Run]:
    """Return runs with NaN, Inf, 0 / 0, log(0), or a batch that is out of scale."""
    return [*_nonfinite(), *_out_of_scale()]


def _nonfinite() -> list[Run]:
    return [
        _nonfinite_run("NaN in one batch, mlp", _one_nan, 60),
        _nonfinite_run("NaN in one batch, clipped transformer", _nan_in_sequences, 73),
        _nonfinite_run("NaN in one batch, 10 steps per execution", _nan_of_many_steps, 47),
        _nonfinite_run("NaN in a feature throughout", _nan_throughout, 0),
        _nonfinite_run("Inf in one batch, cnn", _inf_in_images, 55),
        _nonfinite_run("log(0) in a custom loss", _log_of_zero, 66),
        _nonfinite_run("loss over a batch that is masked altogether", _all_masked, 81),
        _nonfinite_run("root of zero in a distance", _root_of_zero, 39),
    ]


def _out_of_scale() -> list[Run]:
    return [
        Run(
            "inputs of one batch 1000 times too large, mlp",
            lambda r: _scaled(r, 90, 1000.0),
            "exploding",
            AFTER_A_BLOW | {"nonfinite"},
            at=90,
        ),
        Run(
            "targets of one batch 1000 times too large, gru",
            lambda r: _targets_scaled(r, 90, 1000.0),
            "exploding",
            frozenset({"spike"}),
            at=90,
        ),
        Run(
            "targets of one batch 3 times too large, gru",
            lambda r: _targets_scaled(r, 140, 3.0),
            "spike",
            frozenset({"exploding"}),
            at=140,
        ),
        Run("labels of one batch wrong, mlp", _wrong_labels, "spike", at=200),
    ]


def _nonfinite_run(
    name: str, build: Callable[[np.random.Generator, int], Training], at: int
) -> Run:
    return Run(name, lambda random: build(random, at), "nonfinite", at=at)


def _one_nan(random: np.random.Generator, at: int) -> Training:
    x, y = data.regression(random, 100)
    x[data.batch(at)][5, 3] = np.nan
    return Training(models.mlp(), opt.Adam(1e-3), "mse", (x, y))


def _nan_in_sequences(random: np.random.Generator, at: int) -> Training:
    x, y = data.waves(random, 100)
    x[data.batch(at)][0, 7] = np.nan
    # The norms have a median of 3; a limit of 1 changes every update, which `clip_always` reports.
    optimizer = opt.AdamW(1e-3, global_clipnorm=5.0)
    return Training(models.transformer(), optimizer, CLASSES, (x, y))


def _nan_of_many_steps(random: np.random.Generator, at: int) -> Training:
    x, y = data.adding(random, 100)
    x[data.batch(at)][31] = np.nan
    model = models.recurrent(layers.GRU, features=2, outputs=1)
    return Training(model, opt.RMSprop(1e-3), "mse", (x, y), steps_per_execution=10)


def _nan_throughout(random: np.random.Generator, at: int) -> Training:
    x, y = data.classes(random, 60)
    x[at * 32 :, 2] = 0.0
    with np.errstate(invalid="ignore"):
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    return Training(models.mlp(4), opt.SGD(0.05), CLASSES, (x, y))


def _inf_in_images(random: np.random.Generator, at: int) -> Training:
    x, y = data.images(random, 100)
    x[data.batch(at)][2, 4, 4] = np.inf
    return Training(models.cnn(batch_normalization=True), opt.Adam(1e-3), CLASSES, (x, y))


def _log_of_zero(random: np.random.Generator, at: int) -> Training:
    x, y = data.classes(random, 100)
    x[data.batch(at)] *= 1e4
    return Training(models.mlp(4), opt.Adam(1e-3), unguarded_crossentropy, (x, y))


def _all_masked(random: np.random.Generator, at: int) -> Training:
    x, y = data.regression(random, 120)
    y[random.random(len(y)) < 0.3] = -999.0
    y[data.batch(at)] = -999.0
    return Training(models.mlp(), opt.SGD(0.05), masked_mean_error, (x, y))


def _root_of_zero(random: np.random.Generator, at: int) -> Training:
    left, y = data.regression(random, 80)
    right = left + random.normal(size=left.shape).astype("float32")
    right[data.batch(at)][9] = left[data.batch(at)][9]
    tower, inputs = models.mlp(8), [keras.Input((8,)), keras.Input((8,))]
    model = keras.Model(inputs, Distance()(tower(inputs[0]), tower(inputs[1])))
    return Training(model, opt.Adam(1e-3), "mse", ([left, right], np.abs(y)))


def _scaled(random: np.random.Generator, at: int, factor: float) -> Training:
    x, y = data.regression(random, 150)
    x[data.batch(at)] *= factor
    return Training(models.mlp(), opt.SGD(0.05), "mse", (x, y))


def _targets_scaled(random: np.random.Generator, at: int, factor: float) -> Training:
    x, y = data.adding(random, 180)
    y[data.batch(at)] *= factor
    model = models.recurrent(layers.GRU, features=2, outputs=1)
    return Training(model, opt.Adam(1e-3, global_clipnorm=1.0), "mse", (x, y))


def _wrong_labels(random: np.random.Generator) -> Training:
    x, y = data.classes(random, 260, spread=0.4)
    y[data.batch(200)] = (y[data.batch(200)] + 1) % 4
    return Training(models.mlp(4), opt.Adam(1e-3), CLASSES, (x, y))
