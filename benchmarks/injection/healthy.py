"""Healthy runs, in which every finding is a false alarm."""

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.faults import scaled_policy, strategy
from injection.run import Run, Training

CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def healthy_runs() -> list[Run]:
    """Return runs of various models, tasks and optimizers with usual learning rates."""
    return [*_dense(), *_convolutional(), *_recurrent(), *_attention_and_text(), *_special()]


def _dense() -> list[Run]:
    return [
        Run("mlp sgd", lambda r: _mse(models.mlp(), opt.SGD(0.05), data.regression(r, 200))),
        Run(
            "mlp momentum",
            lambda r: _mse(models.mlp(), opt.SGD(0.01, momentum=0.9), data.regression(r, 200)),
        ),
        Run("mlp adam", lambda r: _mse(models.mlp(), opt.Adam(1e-3), data.regression(r, 300))),
        Run(
            "mlp converges exactly",
            lambda r: _mse(models.mlp(units=()), opt.SGD(0.1), data.linear(r, 300)),
        ),
        Run(
            "mlp huber, heavy tails",
            lambda r: Training(models.mlp(), opt.RMSprop(1e-3), "huber", data.heavy_tailed(r, 250)),
        ),
        Run(
            "mlp adam 1e-2, classes",
            lambda r: Training(models.mlp(4), opt.Adam(1e-2), CLASSES, data.classes(r, 250)),
        ),
        Run(
            "mlp adam, separable classes",
            lambda r: Training(models.mlp(4), opt.Adam(3e-3), CLASSES, data.classes(r, 300, 0.3)),
        ),
        Run(
            "mlp adam, rare class",
            lambda r: Training(models.mlp(), opt.Adam(1e-3), BINARY, data.rare_class(r, 250)),
        ),
        Run(
            "mlp dropout, adamw, cosine",
            lambda r: _mse(
                models.normalized_mlp(),
                opt.AdamW(opt.schedules.CosineDecay(3e-3, 200)),
                data.regression(r, 200),
            ),
        ),
        Run(
            "deep relu mlp, he_normal",
            lambda r: _mse(
                models.mlp(units=(32,) * 8, kernel_initializer="he_normal"),
                opt.Adam(1e-3),
                data.regression(r, 150),
            ),
        ),
        Run(
            "residual mlp of 10 blocks",
            lambda r: _mse(models.residual_mlp(), opt.Adam(1e-3), data.regression(r, 120)),
        ),
        Run("tanh autoencoder", _autoencoder),
    ]


def _convolutional() -> list[Run]:
    return [
        Run(
            "cnn sgd",
            lambda r: Training(models.cnn(), opt.SGD(0.05), CLASSES, data.images(r, 150)),
        ),
        Run(
            "cnn with batch normalization, momentum",
            lambda r: Training(
                models.cnn(batch_normalization=True, blocks=3),
                opt.SGD(0.05, momentum=0.9, nesterov=True),
                CLASSES,
                data.images(r, 150),
            ),
        ),
        Run(
            "cnn with batch normalization, adam",
            lambda r: Training(
                models.cnn(batch_normalization=True),
                opt.Adam(1e-3),
                CLASSES,
                data.images(r, 150),
                steps_per_execution=10,
            ),
        ),
    ]


def _recurrent() -> list[Run]:
    return [
        Run("lstm adding, clipped adam", lambda r: _adding(r, layers.LSTM, _adam(1e-3, 1.0))),
        Run("gru adding, adam 1e-2", lambda r: _adding(r, layers.GRU, opt.Adam(1e-2))),
        Run("simple_rnn adding, clipped sgd", lambda r: _adding(r, layers.SimpleRNN, _sgd(0.01))),
        # With Adam(1e-3) and without clipping, the recurrent gradient explodes in single steps of
        # one training in 20, to 10 to 100 times its median.
        Run(
            "simple_rnn waves, clipped adam",
            lambda r: _waves(r, models.recurrent(layers.SimpleRNN), _adam(5e-4, 2.0)),
        ),
        Run(
            "lstm waves, rmsprop",
            lambda r: _waves(r, models.recurrent(layers.LSTM), opt.RMSprop(2e-3)),
        ),
        Run("stacked gru waves, adamw", lambda r: _waves(r, models.stacked(layers.GRU), _adamw())),
    ]


def _attention_and_text() -> list[Run]:
    return [
        Run("transformer waves, adam", lambda r: _waves(r, models.transformer(), opt.Adam(1e-3))),
        Run(
            "transformer waves, clipped adamw with warmup",
            lambda r: _waves(r, models.transformer(), _adamw(_warmup(), global_clipnorm=1.0)),
        ),
        Run(
            "gru language model, adam",
            lambda r: Training(models.language_model(), opt.Adam(3e-3), CLASSES, data.text(r, 200)),
        ),
        Run(
            "lstm language model, clipped sgd",
            lambda r: Training(
                models.language_model(layers.LSTM),
                opt.SGD(1.0, global_clipnorm=1.0),
                CLASSES,
                data.text(r, 200),
            ),
        ),
    ]


def _special() -> list[Run]:
    return [
        Run(
            "new head on a frozen base",
            lambda r: Training(models.frozen_base(), opt.Adam(1e-3), CLASSES, data.classes(r, 150)),
        ),
        Run(
            "mlp, gradients accumulated over 4 steps",
            lambda r: _mse(
                models.mlp(),
                opt.Adam(2e-3, gradient_accumulation_steps=4),
                data.regression(r, 200),
            ),
        ),
        Run("mlp in float16, loss scaled", _half_precision),
        Run("mlp on two replicas", _two_replicas, on_jax=False),
    ]


def _mse(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, examples: data.Data
) -> Training:
    return Training(model, optimizer, "mse", examples)


def _adding(
    random: np.random.Generator, layer: type[layers.RNN], optimizer: keras.optimizers.Optimizer
) -> Training:
    model = models.recurrent(layer, features=2, outputs=1)
    return _mse(model, optimizer, data.adding(random, 200))


def _waves(
    random: np.random.Generator, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Training:
    return Training(model, optimizer, CLASSES, data.waves(random, 200))


def _adam(learning_rate: float, limit: float) -> keras.optimizers.Optimizer:
    return opt.Adam(learning_rate, global_clipnorm=limit)


def _sgd(learning_rate: float) -> keras.optimizers.Optimizer:
    return opt.SGD(learning_rate, momentum=0.9, global_clipnorm=1.0)


def _adamw(learning_rate: object = 2e-3, **options: float) -> keras.optimizers.Optimizer:
    return opt.AdamW(learning_rate, weight_decay=1e-2, **options)


def _warmup() -> opt.schedules.LearningRateSchedule:
    return opt.schedules.CosineDecay(1e-5, 170, warmup_target=3e-3, warmup_steps=30)


def _autoencoder(random: np.random.Generator) -> Training:
    x, _ = data.regression(random, 200)
    return _mse(models.autoencoder(), opt.Adam(3e-3), (x, x))


def _half_precision(random: np.random.Generator) -> Training:
    with scaled_policy():
        model = models.mlp(4)
    optimizer = opt.LossScaleOptimizer(opt.Adam(1e-3), initial_scale=2.0**15)
    return Training(model, optimizer, CLASSES, data.classes(random, 200))


def _two_replicas(random: np.random.Generator) -> Training:
    with strategy().scope():
        model, optimizer = models.mlp(), opt.SGD(0.05)
    examples = data.regression(random, 120)
    return Training(model, optimizer, "mse", examples, strategy=strategy())
