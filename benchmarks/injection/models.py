"""Small models of common architectures."""

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
    """Create dense layers on eight features; `options` apply to the hidden layers."""
    hidden = [layers.Dense(each, activation, **options) for each in units]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(outputs, last)])


def normalized_mlp(outputs: int = 1) -> keras.Model:
    """Create dense layers with LayerNormalization and dropout between them."""
    x = inputs = keras.Input((8,))
    for _ in range(3):
        x = layers.Dropout(0.2)(layers.LayerNormalization()(layers.Dense(32, "gelu")(x)))
    return keras.Model(inputs, layers.Dense(outputs)(x))


def residual_mlp(blocks: int = 10) -> keras.Model:
    """Create dense blocks with residual connections."""
    inputs = keras.Input((8,))
    x = layers.Dense(24)(inputs)
    for _ in range(blocks):
        x = x + layers.Dense(24)(layers.Dense(24, "relu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(1)(x))


def frozen_base() -> keras.Model:
    """Create a trainable head on a frozen base."""
    base = mlp(16, last="tanh")
    base.trainable = False
    return keras.Sequential([keras.Input((8,)), base, layers.Dense(16, "relu"), layers.Dense(4)])


def cnn(*, batch_normalization: bool = False, blocks: int = 2) -> keras.Model:
    """Create a convolutional network for images of 8 by 8 and four classes."""
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
    """Create a model with one recurrent layer of 24 units; `options` apply to that layer."""
    hidden = layer(24, **options)
    return keras.Sequential([keras.Input((length, features)), hidden, layers.Dense(outputs)])


def stacked(layer: type[layers.RNN], features: int = 1, outputs: int = 4) -> keras.Model:
    """Create two recurrent layers, the first one bidirectional."""
    both = layers.Bidirectional(layer(12, return_sequences=True))
    parts = [keras.Input((20, features)), both, layer(16), layers.Dense(outputs)]
    return keras.Sequential(parts)


def transformer(length: int = 20, features: int = 1) -> keras.Model:
    """Create one pre-norm transformer block with average pooling and four classes."""
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
    """Create an embedding, a recurrent layer, and the logits of the next symbol."""
    parts = [layers.Embedding(symbols, 16), layer(24, return_sequences=True), layers.Dense(symbols)]
    return keras.Sequential([keras.Input((length,), dtype="int32"), *parts])


def autoencoder() -> keras.Model:
    """Create an autoencoder of eight features with a bottleneck of three."""
    return mlp(8, units=(16, 3, 16), activation="tanh")
