"""Healthy runs that record the layer outputs, in which every finding is a false alarm."""

from dataclasses import replace

import keras
import numpy as np
from keras import layers
from keras import optimizers as opt

from injection import data, models
from injection.healthy import BINARY, CLASSES
from injection.run import BATCH, Run, Training


def healthy_outputs() -> list[Run]:
    """Return runs of models with various activations, attention and masks."""
    return [recording(run) for run in [*_dense(), *_convolutional(), *_recurrent(), *_attention()]]


def recording(run: Run) -> Run:
    """Return the run with the statistics of the layer outputs."""

    def build(random: np.random.Generator) -> Training:
        return replace(run.build(random), measurements=("activations",))

    return replace(run, build=build, on_jax=False)


def _dense() -> list[Run]:
    return [
        Run("relu mlp, outputs recorded", lambda r: _regression(r, models.mlp())),
        Run("gelu mlp, outputs recorded", lambda r: _regression(r, models.mlp(activation="gelu"))),
        Run(
            "tanh mlp, separable classes",
            lambda r: _classes(r, models.mlp(4, activation="tanh"), opt.Adam(1e-2), 0.3),
        ),
        Run(
            "selu mlp, lecun_normal",
            lambda r: _regression(
                r, models.mlp(activation="selu", kernel_initializer="lecun_normal")
            ),
        ),
        Run("sigmoid head of a confident classifier", _confident),
        Run("softmax head, separable classes", _softmax_head),
        Run("sparse relu features", _sparse_features),
        Run("hard sigmoid and hard tanh gates", _hard_gates),
        Run("tanh autoencoder, outputs recorded", _autoencoder),
        Run("dropout of 0.8 behind relu", _dropout),
        Run(
            "residual mlp, outputs recorded",
            lambda r: _regression(r, models.residual_mlp(6), opt.Adam(3e-3)),
        ),
        Run("last layer starts at zero", _zero_head),
    ]


def _convolutional() -> list[Run]:
    return [
        Run(
            "cnn with relu, outputs recorded",
            lambda r: Training(models.cnn(), opt.SGD(0.05), CLASSES, data.images(r, 150)),
        ),
        Run(
            "cnn with batch normalization, outputs recorded",
            lambda r: Training(
                models.cnn(batch_normalization=True), opt.Adam(3e-3), CLASSES, data.images(r, 150)
            ),
        ),
        Run("pixels from 0 to 255, rescaled", _pixels),
    ]


def _recurrent() -> list[Run]:
    return [
        Run("gru, outputs recorded", lambda r: _waves(r, models.recurrent(layers.GRU))),
        Run(
            "lstm with hard sigmoid gates",
            lambda r: _waves(r, models.recurrent(layers.LSTM, recurrent_activation="hard_sigmoid")),
        ),
        Run("embeddings with masks, lstm", _masked),
    ]


def _attention() -> list[Run]:
    return [
        Run(
            "transformer, outputs recorded",
            lambda r: _waves(r, models.transformer(), opt.Adam(3e-3)),
        ),
        Run("causal transformer of text", _causal),
        Run("attention that copies a marked item", _copying),
        Run("attention over masked keys", _masked_attention),
        Run("attention that copies, noisy targets", lambda r: _copying(r, noise=1.5)),
        Run("mean of embeddings, separable classes", _mean_of_embeddings),
    ]


def _regression(
    random: np.random.Generator, model: keras.Model, optimizer: object = None, steps: int = 200
) -> Training:
    return Training(model, optimizer or opt.Adam(1e-3), "mse", data.regression(random, steps))


def _classes(
    random: np.random.Generator, model: keras.Model, optimizer: object, spread: float = 1.0
) -> Training:
    return Training(model, optimizer, CLASSES, data.classes(random, 250, spread))


def _waves(random: np.random.Generator, model: keras.Model, optimizer: object = None) -> Training:
    return Training(model, optimizer or opt.Adam(2e-3), CLASSES, data.waves(random, 200))


def _confident(random: np.random.Generator) -> Training:
    x, y = data.classes(random, 300, 0.2)
    model = models.mlp(1, last="sigmoid")
    labels = (y < 2)[:, None].astype("float32")
    return Training(model, opt.Adam(1e-2), "binary_crossentropy", (x, labels))


def _softmax_head(random: np.random.Generator) -> Training:
    examples = data.classes(random, 300, 0.2)
    loss = "sparse_categorical_crossentropy"
    return Training(models.mlp(4, last="softmax"), opt.Adam(1e-2), loss, examples)


def _sparse_features(random: np.random.Generator) -> Training:
    hidden = layers.Dense(64, "relu", activity_regularizer=keras.regularizers.L1(1e-4))
    model = keras.Sequential([keras.Input((8,)), hidden, layers.Dense(8)])
    x, _ = data.regression(random, 250)
    return Training(model, opt.Adam(3e-3), "mse", (x, x))


def _hard_gates(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    gate = layers.Dense(32, "hard_sigmoid")(inputs)
    x = layers.Dense(32, "hard_tanh")(inputs) * gate
    model = keras.Model(inputs, layers.Dense(4)(x))
    return _classes(random, model, opt.Adam(3e-3))


def _autoencoder(random: np.random.Generator) -> Training:
    x, _ = data.regression(random, 200)
    return Training(models.autoencoder(), opt.Adam(1e-2), "mse", (x, x))


def _dropout(random: np.random.Generator) -> Training:
    hidden = [layers.Dense(64, "relu"), layers.Dropout(0.8), layers.Dense(64, "relu")]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dropout(0.8), layers.Dense(4)])
    return _classes(random, model, opt.Adam(3e-3))


def _zero_head(random: np.random.Generator) -> Training:
    inputs = keras.Input((8,))
    x = layers.Dense(24, "relu")(inputs)
    for _ in range(4):
        x = x + layers.Dense(24, kernel_initializer="zeros")(layers.Dense(24, "relu")(x))
    model = keras.Model(inputs, layers.Dense(4, kernel_initializer="zeros")(x))
    return _classes(random, model, opt.Adam(3e-3))


def _pixels(random: np.random.Generator) -> Training:
    x, y = data.images(random, 150)
    x = np.clip(127 + 60 * x, 0, 255).round()
    cnn = models.cnn()
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 127, -1), cnn])
    return Training(model, opt.Adam(3e-3), CLASSES, (x, y))


def _masked(random: np.random.Generator) -> Training:
    tokens, y = padded(random, 200)
    parts = [layers.Embedding(13, 16, mask_zero=True), layers.LSTM(24), layers.Dense(4)]
    model = keras.Sequential([keras.Input((15,), dtype="int32"), *parts])
    return Training(model, opt.Adam(3e-3), CLASSES, (tokens, y))


def padded(random: np.random.Generator, steps: int) -> data.Data:
    """Generate sequences of symbols 1 to 12 with padding; the label is the last symbol modulo 4."""
    tokens = data.text(random, steps)[0] + 1
    lengths = random.integers(3, 16, len(tokens))
    tokens[np.arange(15) >= lengths[:, None]] = 0
    return tokens, tokens[np.arange(len(tokens)), lengths - 1] % 4


def _causal(random: np.random.Generator) -> Training:
    return Training(text_transformer(), opt.Adam(3e-3), CLASSES, data.text(random, 200))


def text_transformer(symbols: int = 12, blocks: int = 2, **options: object) -> keras.Model:
    """Create causal transformer blocks; `options` apply to the attention layers."""
    inputs = keras.Input((15,), dtype="int32")
    x = layers.Embedding(symbols, 16)(inputs)
    x = x + layers.Embedding(15, 16)(keras.ops.arange(15)[None])
    for _ in range(blocks):
        normed = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, 8, **options)(normed, normed, use_causal_mask=True)
        hidden = layers.Dense(32, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(16)(hidden)
    return keras.Model(inputs, layers.Dense(symbols)(layers.LayerNormalization()(x)))


def marked_items(random: np.random.Generator, steps: int, length: int = 10) -> data.Data:
    """Generate sequences of vectors, one of which is marked; the target is this vector."""
    pool = 20 * BATCH
    x = random.normal(size=(pool, length, 5)).astype("float32")
    place = random.integers(0, length, pool)
    x[..., 4] = 0
    x[np.arange(pool), place, 4] = 1
    return data.epochs(random, steps, x, x[np.arange(pool), place, :4])


def copying_attention() -> keras.Model:
    """Create an attention layer with one query, the mean of the inputs."""
    inputs = keras.Input((10, 5))
    query = layers.Dense(16)(layers.GlobalAveragePooling1D(keepdims=True)(inputs))
    x = layers.MultiHeadAttention(1, 16)(query, layers.Dense(16)(inputs))
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def _copying(random: np.random.Generator, noise: float = 0.0) -> Training:
    x, y = marked_items(random, 300)
    y += (noise * random.normal(size=y.shape)).astype("float32")
    return Training(copying_attention(), opt.Adam(1e-2), "mse", (x, y))


def _masked_attention(random: np.random.Generator) -> Training:
    tokens, y = padded(random, 200)
    inputs = keras.Input((15,), dtype="int32")
    x = layers.Embedding(13, 16, mask_zero=True)(inputs)
    x = layers.MultiHeadAttention(2, 8)(x, x)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    return Training(model, opt.Adam(3e-3), CLASSES, (tokens, y))


def _mean_of_embeddings(random: np.random.Generator) -> Training:
    labels = random.integers(0, 2, 300 * BATCH)
    tokens = random.integers(1, 25, (len(labels), 15)) + 25 * labels[:, None]
    parts = [layers.Embedding(50, 16), layers.GlobalAveragePooling1D(), layers.Dense(16, "relu")]
    model = keras.Sequential([keras.Input((15,), dtype="int32"), *parts, layers.Dense(1)])
    labels = labels[:, None].astype("float32")
    return Training(model, opt.Adam(1e-2), BINARY, (tokens, labels))
