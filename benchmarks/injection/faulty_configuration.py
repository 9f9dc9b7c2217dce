"""Working models and data with a misconfigured optimizer."""

import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.faults import ClippedByHand
from injection.healthy import CLASSES
from injection.run import Run, Training

AFTER_A_HIGH_RATE = frozenset({"exploding", "spike", "nonfinite", "dead", "vanishing"})


def faulty_configurations() -> list[Run]:
    """Return runs with wrong clipping limits or learning rates."""
    return [*_limits(), *_learning_rates()]


def _limits() -> list[Run]:
    return [
        Run("global_clipnorm 1e-3, lstm", _clips_all, "clip_always", at=0),
        Run("clipvalue 1e-4, mlp", _clips_all_values, "clip_always", at=0),
        Run("global_clipnorm 1e6, mlp", _clips_none, "clip_never", at=0),
        Run("clipnorm 1e5, simple_rnn", _clips_no_variable, "clip_never", at=0),
        Run("clipped in the train step, mlp", _clips_by_hand, "clipped_by_hand", at=0),
    ]


def _learning_rates() -> list[Run]:
    return [
        Run("adam learning rate 1, mlp", _hot_adam, "update_ratio", AFTER_A_HIGH_RATE, at=0),
        Run("adam learning rate 0.5, gru", _hot_gru, "update_ratio", AFTER_A_HIGH_RATE, at=0),
        Run("adam learning rate 1e-10, mlp", _cold_adam, "update_ratio", at=0),
        Run("sgd learning rate 1e-10, cnn", _cold_sgd, "update_ratio", at=0),
        Run("learning rate decays to 0 too early", _early_decay, "update_ratio", at=80),
    ]


def _clips_all(random: np.random.Generator) -> Training:
    optimizer = opt.Adam(1e-3, global_clipnorm=1e-3)
    return Training(models.recurrent(layers.LSTM), optimizer, CLASSES, data.waves(random, 150))


def _clips_all_values(random: np.random.Generator) -> Training:
    return Training(
        models.mlp(), opt.SGD(0.05, clipvalue=1e-4), "mse", data.regression(random, 150)
    )


def _clips_none(random: np.random.Generator) -> Training:
    optimizer = opt.Adam(1e-3, global_clipnorm=1e6)
    return Training(models.mlp(units=(16,)), optimizer, "mse", data.regression(random, 520))


def _clips_no_variable(random: np.random.Generator) -> Training:
    model = models.recurrent(layers.SimpleRNN, features=2, outputs=1, length=8)
    examples = data.adding(random, 520, length=8)
    return Training(model, opt.SGD(0.01, clipnorm=1e5), "mse", examples, steps_per_execution=20)


def _clips_by_hand(random: np.random.Generator) -> Training:
    mlp = models.mlp()
    model = ClippedByHand(mlp.inputs, mlp.outputs)
    return Training(model, opt.SGD(0.05), "mse", data.regression(random, 150))


def _hot_adam(random: np.random.Generator) -> Training:
    return Training(models.mlp(4), opt.Adam(1.0), CLASSES, data.classes(random, 100))


def _hot_gru(random: np.random.Generator) -> Training:
    model = models.recurrent(layers.GRU, features=2, outputs=1)
    return Training(model, opt.Adam(0.5), "mse", data.adding(random, 100))


def _cold_adam(random: np.random.Generator) -> Training:
    return Training(models.mlp(), opt.Adam(1e-10), "mse", data.regression(random, 60))


def _cold_sgd(random: np.random.Generator) -> Training:
    return Training(models.cnn(), opt.SGD(1e-10), CLASSES, data.images(random, 60))


def _early_decay(random: np.random.Generator) -> Training:
    optimizer = opt.AdamW(opt.schedules.CosineDecay(3e-3, 80), weight_decay=1e-2)
    return Training(models.normalized_mlp(), optimizer, "mse", data.regression(random, 160))
