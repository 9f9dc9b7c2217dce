"""Models for the overhead benchmark, each with a batch of data."""

from collections.abc import Callable

import keras
import numpy as np

BATCH = 32

Built = tuple[keras.Model, np.ndarray]


def mlp() -> Built:
    """Create eight dense layers of 512 units."""
    layers = [keras.layers.Dense(512, "relu") for _ in range(8)]
    model = keras.Sequential([keras.Input((512,)), *layers, keras.layers.Dense(1)])
    return model, np.random.default_rng(0).normal(size=(BATCH, 512))


def cnn() -> Built:
    """Create a small convolutional network for 32 by 32 images."""
    layers = [keras.layers.Conv2D(n, 3, activation="relu", strides=2) for n in (32, 64, 64)]
    head = [keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers, *head])
    return model, np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3))


def transformer() -> Built:
    """Create two transformer blocks of width 128 over 64 steps."""
    inputs = hidden = keras.Input((64, 128))
    for _ in range(2):
        attended = keras.layers.MultiHeadAttention(4, 32)(hidden, hidden)
        hidden = keras.layers.LayerNormalization()(hidden + attended)
        widened = keras.layers.Dense(512, "relu")(hidden)
        hidden = keras.layers.LayerNormalization()(hidden + keras.layers.Dense(128)(widened))
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(hidden))
    return keras.Model(inputs, outputs), np.random.default_rng(0).normal(size=(BATCH, 64, 128))


def lstm() -> Built:
    """Create one LSTM of 128 units over 100 steps."""
    layers = [keras.Input((100, 2)), keras.layers.LSTM(128), keras.layers.Dense(1)]
    return keras.Sequential(layers), np.random.default_rng(0).normal(size=(BATCH, 100, 2))


def language_model() -> Built:
    """Create an embedding and a GRU over 50 tokens."""
    layers = [
        keras.Input((50,), dtype="int32"),
        keras.layers.Embedding(1000, 64),
        keras.layers.GRU(128),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers), np.random.default_rng(0).integers(0, 1000, (BATCH, 50))


def many_variables(count: int) -> Built:
    """Create `count` variables, of 64 and of 8 elements in turn."""
    layers = [keras.layers.Dense(8, "tanh") for _ in range(count // 2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    return model, np.random.default_rng(0).normal(size=(BATCH, 8))


MODELS: tuple[Callable[[], Built], ...] = (mlp, cnn, transformer, lstm, language_model)
