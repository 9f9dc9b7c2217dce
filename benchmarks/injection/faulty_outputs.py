"""Runs with a fault in the layer outputs, the attention or the masks."""

from dataclasses import replace

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.faults import KillUnits
from injection.healthy import CLASSES
from injection.healthy_outputs import (
    copying_attention,
    marked_items,
    padded,
    recording,
    text_transformer,
)
from injection.run import Run, Training

LARGE = keras.initializers.RandomNormal(stddev=10.0)
GRADIENTS = frozenset({"dead", "exploding", "nonfinite", "spike", "update_ratio", "vanishing"})
OUTPUTS = frozenset({"activation_growth", "dead_units", "saturated"})
ATTENTION = frozenset({"attention_collapse", "attention_logit_growth"})
AFTER = GRADIENTS | OUTPUTS


def faulty_outputs() -> list[Run]:
    """Return runs with dead, saturated or growing outputs, collapsed attention and lost masks."""
    runs = [*_dead(), *_saturated(), *_growing(), *_attention(), *_masks()]
    return [recording(run) for run in runs]


def _dead() -> list[Run]:
    rule, after = "dead_units", AFTER
    return [
        Run("three of four relu units with bias -30", _partly_dead, rule, after, 0, "dense_1"),
        Run("relu units die at a step", _dying, rule, after, at=100, layer="dense_1"),
        Run("relu mlp, inputs from 0 to 255, adam 0.1", _dead_by_inputs, rule, after, at=0),
        Run("relu mlp, adam learning rate 0.5", lambda r: _hot(r, "relu", 0.5), rule, after, 0),
        Run("relu cnn, adam learning rate 0.3", _dead_cnn, rule, after, at=0),
        Run("relu6 layer with bias -30", _dead_relu6, rule, after, at=0),
        Run("20 relu layers of 3 units", _narrow, rule, after, at=0),
        Run("relu simple_rnn, adam learning rate 0.1", _dead_rnn, rule, after, at=0),
    ]


def _saturated() -> list[Run]:
    rule, after = "saturated", AFTER
    return [
        Run("tanh mlp, inputs from 0 to 255", lambda r: _unscaled(r, "tanh"), rule, after, 0),
        Run("sigmoid mlp, inputs from 0 to 255", lambda r: _unscaled(r, "sigmoid"), rule, after, 0),
        Run("tanh mlp, large initial weights", _large_weights, rule, after, at=0),
        Run("tanh mlp, adam learning rate 1", lambda r: _hot(r, "tanh", 1.0), rule, after, at=0),
        Run("simple_rnn, inputs 1000 times too large", _saturated_rnn, rule, after, at=0),
        Run("hard sigmoid gate of unscaled inputs", _saturated_gate, rule, after, at=0),
    ]


def _growing() -> list[Run]:
    rule, after = "activation_growth", AFTER
    return [
        Run("deep relu mlp, weights 5 times he_normal", _grows_with_depth, rule, after, at=0),
        Run("residual mlp without normalization, adam 0.3", _hot_residual, rule, after, at=0),
        Run("gelu mlp, adam learning rate 3", lambda r: _hot(r, "gelu", 3.0), rule, after, at=0),
        Run("deep cnn, initial weights of deviation 2", _large_cnn, rule, after, at=0),
        Run("loss without a lower bound", _unbounded_loss, rule, after, at=0),
    ]


def _attention() -> list[Run]:
    collapse, growth, after = "attention_collapse", "attention_logit_growth", AFTER | ATTENTION
    return [
        Run("attention, query kernel 1000 times too large", _large_query, collapse, after, at=0),
        Run("attention, inputs 100 times too large", _large_inputs, collapse, after, at=0),
        Run("dot attention of 256 unscaled units", _unscaled_dot, collapse, after, at=0),
        Run("attention that copies, adam learning rate 0.5", _hot_copying, collapse, after, at=0),
        Run("causal transformer, adam 0.5", lambda r: _hot_text(r, 0.5), growth, after, at=0),
        Run("causal transformer, adam 0.1", lambda r: _hot_text(r, 0.1), growth, after, at=0),
        Run("transformer, sgd learning rate 10", _hot_sgd, growth, after, at=0),
        Run("transformer, adam learning rate 0.3", _hot_transformer, growth, after, at=0),
    ]


def _masks() -> list[Run]:
    return [
        Run("mask lost before a gru", _lost_before_gru, "mask_lost", at=0, layer="loses"),
        Run("mask lost before a pooling", _lost_before_pooling, "mask_lost", at=0, layer="loses"),
        Run("mask lost before the loss", _lost_before_loss, "mask_lost", at=0, layer="loses"),
    ]


def _partly_dead(random: np.random.Generator) -> Training:
    model = models.mlp(4, units=(32, 32, 32))
    model.layers[1].bias.assign(np.where(np.arange(32) < 24, -30.0, 0.0))
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 120))


def _dying(random: np.random.Generator) -> Training:
    model = models.mlp(4, units=(32, 32, 32))
    kill = KillUnits("dense_1", 100)
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 250), callbacks=(kill,))


def _dead_by_inputs(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 150)
    return Training(models.mlp(), opt.Adam(0.1), "mse", (np.clip(127 + 60 * x, 0, 255), y))


def _hot(random: np.random.Generator, activation: str, rate: float) -> Training:
    model = models.mlp(4, activation=activation)
    return Training(model, opt.Adam(rate), CLASSES, data.classes(random, 150))


def _dead_cnn(random: np.random.Generator) -> Training:
    return Training(models.cnn(blocks=3), opt.Adam(0.3), CLASSES, data.images(random, 150))


def _dead_relu6(random: np.random.Generator) -> Training:
    below = keras.initializers.Constant(-30.0)
    dense = layers.Dense(32, "relu6", bias_initializer=below)
    model = keras.Sequential([keras.Input((8,)), dense, layers.Dense(4)])
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 120))


def _narrow(random: np.random.Generator) -> Training:
    model = models.mlp(4, units=(3,) * 20)
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 120))


def _dead_rnn(random: np.random.Generator) -> Training:
    model = models.recurrent(layers.SimpleRNN, features=2, outputs=1, activation="relu")
    return Training(model, opt.Adam(0.1), "mse", data.adding(random, 150))


def _unscaled(random: np.random.Generator, activation: str) -> Training:
    x, y = data.classes(random, 120)
    model = models.mlp(4, activation=activation)
    return Training(model, opt.Adam(1e-3), CLASSES, (127 + 60 * x, y))


def _large_weights(random: np.random.Generator) -> Training:
    model = models.mlp(4, activation="tanh", kernel_initializer=LARGE)
    return Training(model, opt.Adam(1e-3), CLASSES, data.classes(random, 120))


def _saturated_rnn(random: np.random.Generator) -> Training:
    x, y = data.waves(random, 120)
    model = models.recurrent(layers.SimpleRNN)
    return Training(model, opt.Adam(1e-3), CLASSES, (1000 * x, y))


def _saturated_gate(random: np.random.Generator) -> Training:
    x, y = data.classes(random, 120)
    inputs = keras.Input((8,))
    gated = layers.Dense(16, "relu")(inputs) * layers.Dense(16, "hard_sigmoid")(inputs)
    model = keras.Model(inputs, layers.Dense(4)(gated))
    return Training(model, opt.Adam(1e-3), CLASSES, (100 * x, y))


def _grows_with_depth(random: np.random.Generator) -> Training:
    initializer = keras.initializers.VarianceScaling(50.0)
    model = models.mlp(units=(32,) * 8, kernel_initializer=initializer)
    return Training(model, opt.Adam(1e-3), "mse", data.regression(random, 100))


def _hot_residual(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    x = layers.Dense(24)(inputs)
    for _ in range(4):
        x = x + layers.Dense(24)(layers.Dense(24, "relu")(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    return Training(model, opt.Adam(0.3), "mse", data.regression(random, 100))


def _large_cnn(random: np.random.Generator) -> Training:
    x = inputs = keras.Input((8, 8, 1))
    large = keras.initializers.RandomNormal(stddev=2.0)
    for _ in range(5):
        x = layers.Conv2D(8, 3, padding="same", activation="relu", kernel_initializer=large)(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    return Training(model, opt.Adam(1e-3), CLASSES, data.images(random, 100))


def _unbounded_loss(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 200)
    return Training(models.mlp(), opt.Adam(3e-2), lambda y, score: -y * score, (x, np.sign(y)))


def _large_query(random: np.random.Generator) -> Training:
    model = models.transformer(10, 5)
    kernel = model.get_layer("multi_head_attention").query_dense.kernel
    kernel.assign(1000 * kernel)
    x, y = marked_items(random, 100)
    return Training(model, opt.Adam(1e-3), "mse", (x, y))


def _large_inputs(random: np.random.Generator) -> Training:
    x, y = marked_items(random, 100)
    inputs = keras.Input((10, 5))
    attended = layers.MultiHeadAttention(2, 8)(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(attended)))
    return Training(model, opt.Adam(1e-3), "mse", (100 * x, y))


def _unscaled_dot(random: np.random.Generator) -> Training:
    inputs = keras.Input((10, 5))
    x = layers.LayerNormalization()(layers.Dense(256)(inputs))
    x = layers.GlobalAveragePooling1D()(layers.Attention()([x, x]))
    model = keras.Model(inputs, layers.Dense(4)(x))
    return Training(model, opt.Adam(1e-3), "mse", marked_items(random, 100))


def _hot_transformer(random: np.random.Generator) -> Training:
    return Training(models.transformer(), opt.Adam(0.3), CLASSES, data.waves(random, 120))


def _hot_sgd(random: np.random.Generator) -> Training:
    return Training(models.transformer(), opt.SGD(10.0), CLASSES, data.waves(random, 80))


def _hot_text(random: np.random.Generator, rate: float) -> Training:
    return Training(text_transformer(), opt.Adam(rate), CLASSES, data.text(random, 100))


def _hot_copying(random: np.random.Generator) -> Training:
    return Training(copying_attention(), opt.Adam(0.5), "mse", marked_items(random, 120))


def _lost_before_gru(random: np.random.Generator) -> Training:
    loses = layers.LSTM(8, return_sequences=True, name="loses")
    return _masked(random, loses, layers.GRU(8), layers.Dense(4))


def _lost_before_pooling(random: np.random.Generator) -> Training:
    loses = layers.Bidirectional(layers.GRU(8, return_sequences=True), name="loses")
    return _masked(random, loses, layers.GlobalAveragePooling1D(), layers.Dense(4))


def _lost_before_loss(random: np.random.Generator) -> Training:
    loses = layers.GRU(16, return_sequences=True, name="loses")
    training = _masked(random, loses, layers.Dense(13))
    tokens, _ = training.data
    return replace(training, data=(tokens[:, :-1], tokens[:, 1:]))


def _masked(
    random: np.random.Generator, loses: keras.layers.Layer, *others: keras.layers.Layer
) -> Training:
    loses.supports_masking = False  # as Keras 3.16 creates it, for every Keras version
    parts = [layers.Embedding(13, 16, mask_zero=True), loses, *others]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *parts])
    return Training(model, opt.Adam(3e-3), CLASSES, padded(random, 60))
