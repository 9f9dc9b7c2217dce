"""Models that cannot be trained because of their architecture or initialization."""

from dataclasses import replace

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.faults import Detached, KillUnits, Rounded, Unused, poisson_likelihood
from injection.healthy import CLASSES
from injection.run import Run, Training

DEPTH = frozenset({"vanishing", "vanishing_with_depth"})


def faulty_models() -> list[Run]:
    """Return runs with dead, vanishing, missing and exploding gradients."""
    return [*_dead(), *_vanishing(), *_missing(), *_exploding()]


def _dead() -> list[Run]:
    return [
        Run("relu layer with bias -100", _dead_relu, "dead", at=0, layer="dense_1"),
        Run("relu layer dies at a step", _dying_relu, "dead", at=100, layer="dense_1"),
        Run("input branch that is always zero", _zero_input, "dead", at=0, layer="empty"),
        Run("branch multiplied by zero", _zero_gate, "dead", at=0, layer="gated"),
    ]


def _vanishing() -> list[Run]:
    return [
        Run(
            "12 sigmoid layers",
            lambda r: _deep(r, 12, "sigmoid"),
            "vanishing_with_depth",
            DEPTH,
            at=0,
        ),
        Run(
            "12 tanh layers of small initial weights",
            lambda r: _deep(r, 12, "tanh", keras.initializers.RandomNormal(stddev=0.05)),
            "vanishing_with_depth",
            DEPTH,
            at=0,
        ),
        Run("25 sigmoid layers", lambda r: _deep(r, 25, "sigmoid"), "vanishing", DEPTH, at=0),
        Run(
            "encoder behind a long simple_rnn decoder",
            _long_decoder,
            "vanishing",
            DEPTH,
            at=0,
            layer="encoder",
        ),
    ]


def _missing() -> list[Run]:
    runs = [
        Run("output that the loss does not use", _unused_head, "missing", at=0, layer="unused"),
        Run("encoder behind stop_gradient", _detached, "missing", at=0, layer="encoder"),
        Run("kernel that no call uses", _unused_kernel, "missing", at=0, layer="unused"),
        Run("bottleneck rounded to integers", _rounded, "missing", at=0, layer="encoder"),
    ]
    return [replace(run, on_jax=False) for run in runs]  # JAX returns zeros


def _exploding() -> list[Run]:
    after = frozenset({"nonfinite", "spike", "update_ratio", "dead", "vanishing"})
    return [
        Run("simple_rnn, sgd learning rate 1", _hot_rnn, "exploding", after),
        Run("irnn that overflows in a step", _hot_irnn, "nonfinite", after | {"exploding"}),
        Run("relu simple_rnn with a recurrent matrix of 2 I", _large_rnn, "exploding", after, at=0),
        Run("mlp, sgd learning rate too high", _hot_mlp, "exploding", after),
        Run("log of a rate that may be zero", _poisson, "nonfinite", after | {"exploding"}),
    ]


def _dead_relu(random: np.random.Generator) -> Training:
    model = models.mlp(units=(32, 32, 32))
    model.layers[1].bias.assign(np.full(32, -100.0))
    return Training(model, opt.Adam(1e-3), "mse", data.regression(random, 120))


def _dying_relu(random: np.random.Generator) -> Training:
    kill = KillUnits("dense_1", 100)
    model = models.mlp(4, units=(32, 32, 32))
    examples = data.classes(random, 200)
    return Training(model, opt.SGD(0.05), CLASSES, examples, callbacks=(kill,))


def _zero_input(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 100)
    inputs = [keras.Input((8,)), keras.Input((4,))]
    branches = [layers.Dense(16, "relu")(inputs[0]), layers.Dense(16, name="empty")(inputs[1])]
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(branches)))
    return Training(model, opt.Adam(1e-3), "mse", ([x, np.zeros((len(x), 4), "float32")], y))


def _zero_gate(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    branch = 0.0 * layers.Dense(16, "relu", name="gated")(inputs)
    x = layers.Concatenate()([layers.Dense(16, "relu")(inputs), branch])
    model = keras.Model(inputs, layers.Dense(4)(x))
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 100))


def _deep(
    random: np.random.Generator, depth: int, activation: str, initializer: object = None
) -> Training:
    initializer = initializer or "glorot_uniform"
    model = models.mlp(units=(24,) * depth, activation=activation, kernel_initializer=initializer)
    return Training(model, opt.Adam(1e-3), "mse", data.regression(random, 100))


def _long_decoder(random: np.random.Generator) -> Training:
    x, y = data.adding(random, 100, length=10)
    source, silence = keras.Input((10, 2)), keras.Input((50, 1))
    state = layers.SimpleRNN(16, name="encoder")(source)
    small = keras.initializers.Orthogonal(gain=0.5)
    decoder = layers.SimpleRNN(16, recurrent_initializer=small, name="decoder")
    model = keras.Model([source, silence], layers.Dense(1)(decoder(silence, initial_state=state)))
    noise = random.normal(size=(len(x), 50, 1)).astype("float32")
    return Training(model, opt.Adam(1e-3), "mse", ([x, noise], y))


def _unused_head(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, "relu")(inputs)
    outputs = [layers.Dense(4)(hidden), layers.Dense(2, name="unused")(hidden)]
    examples = data.classes(random, 60)
    return Training(keras.Model(inputs, outputs), opt.Adam(1e-3), [CLASSES, None], examples)


def _detached(random: np.random.Generator) -> Training:
    inputs = keras.Input((20, 1))
    x = Detached()(layers.LSTM(16, name="encoder")(inputs))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(16, "relu")(x)))
    return Training(model, opt.Adam(1e-3), CLASSES, data.waves(random, 60))


def _unused_kernel(random: np.random.Generator) -> Training:
    model = keras.Sequential([keras.Input((8,)), Unused(name="unused"), layers.Dense(1)])
    return Training(model, opt.RMSprop(1e-3), "mse", data.regression(random, 60))


def _rounded(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    x = Rounded()(layers.Dense(16, name="encoder")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(16, "relu")(x)))
    return Training(model, opt.SGD(0.01), "mse", data.regression(random, 60))


def _hot_rnn(random: np.random.Generator) -> Training:
    model = models.recurrent(layers.SimpleRNN, features=2, outputs=1)
    return Training(model, opt.SGD(1.0), "mse", data.adding(random, 80))


def _hot_irnn(random: np.random.Generator) -> Training:
    options = {"activation": "relu", "recurrent_initializer": "identity"}
    model = models.recurrent(layers.SimpleRNN, features=2, outputs=1, length=50, **options)
    return Training(model, opt.SGD(0.1), "mse", data.adding(random, 80, length=50))


def _large_rnn(random: np.random.Generator) -> Training:
    options = {"activation": "relu", "recurrent_initializer": keras.initializers.Identity(2.0)}
    model = models.recurrent(layers.SimpleRNN, features=2, outputs=1, length=30, **options)
    return Training(model, opt.Adam(1e-3), "mse", data.adding(random, 60, length=30))


def _hot_mlp(random: np.random.Generator) -> Training:
    model = models.mlp(activation="linear")
    return Training(model, opt.SGD(1.0), "mse", data.linear(random, 80))


def _poisson(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 60)
    counts = random.poisson(np.exp(y)).astype("float32")
    return Training(models.mlp(last="relu"), opt.SGD(0.01), poisson_likelihood, (x, counts))
