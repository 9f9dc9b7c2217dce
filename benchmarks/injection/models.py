"""Tiny models of the usual kinds."""

from typing import Any

import keras
from keras import layers


def mlp(
    outputs: int = 1,
    *,
    units: tuple[int, ...] = (32, 32),
    activation: str = "relu",
    last: str | None = None,
    **options: Any,
) -> keras.Model:
    """Dense layers on eight features; the options go to the hidden ones."""
    hidden = [layers.Dense(each, activation, **options) for each in units]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(outputs, last)])


def normalized_mlp(outputs: int = 1) -> keras.Model:
    """Dense layers with LayerNormalization and dropout between them."""
    x = inputs = keras.Input((8,))
    for _ in range(3):
        x = layers.Dropout(0.2)(layers.LayerNormalization()(layers.Dense(32, "gelu")(x)))
    return keras.Model(inputs, layers.Dense(outputs)(x))


def residual_mlp(blocks: int = 10) -> keras.Model:
    """Dense blocks, each added to what enters it."""
    inputs = keras.Input((8,))
    x = layers.Dense(24)(inputs)
    for _ in range(blocks):
        x = x + layers.Dense(24)(layers.Dense(24, "relu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(1)(x))


def frozen_base() -> keras.Model:
    """A new head on a base that is not trained."""
    base = mlp(16, last="tanh")
    base.trainable = False
    return keras.Sequential([keras.Input((8,)), base, layers.Dense(16, "relu"), layers.Dense(4)])


def cnn(*, batch_normalization: bool = False, blocks: int = 2) -> keras.Model:
    """Convolutions on pictures of 8 by 8, four classes."""
    x = inputs = keras.Input((8, 8, 1))
    for _ in range(blocks):
        x = layers.Conv2D(8, 3, padding="same", use_bias=not batch_normalization)(x)
        if batch_normalization:
            x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def recurrent(
    layer: type[layers.RNN], features: int = 1, outputs: int = 4, length: int = 20, **options: Any
) -> keras.Model:
    """One recurrent layer of 24 units, read at the sequence's end; the options are its own."""
    hidden = layer(24, **options)
    return keras.Sequential([keras.Input((length, features)), hidden, layers.Dense(outputs)])


def stacked(layer: type[layers.RNN], features: int = 1, outputs: int = 4) -> keras.Model:
    """Two recurrent layers, the first in both directions."""
    both = layers.Bidirectional(layer(12, return_sequences=True))
    parts = [keras.Input((20, features)), both, layer(16), layers.Dense(outputs)]
    return keras.Sequential(parts)


def transformer(length: int = 20, features: int = 1) -> keras.Model:
    """One pre-norm block, averaged over the sequence, four classes."""
    inputs = keras.Input((length, features))
    x = layers.Dense(16)(inputs)
    normed = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8)(normed, normed)
    x = x + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(x)))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(4)(x))


def language_model(
    layer: type[layers.RNN] = layers.GRU, length: int = 15, symbols: int = 12
) -> keras.Model:
    """Embedding, a recurrent layer, and the logits of the next symbol."""
    parts = [layers.Embedding(symbols, 16), layer(24, return_sequences=True), layers.Dense(symbols)]
    return keras.Sequential([keras.Input((length,), dtype="int32"), *parts])


def autoencoder() -> keras.Model:
    """Eight features through a bottleneck of three."""
    return mlp(8, units=(16, 3, 16), activation="tanh")
