"""Small models and matching data for the callback tests."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Data = tuple[np.ndarray, np.ndarray]


def dense() -> tuple[keras.Model, Data]:
    return _built([keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(1)], (6,))


def recurrent() -> tuple[keras.Model, Data]:
    layers = [keras.Input((7, 2)), keras.layers.LSTM(4), keras.layers.Dense(1)]
    return _built(layers, (7, 2))


def convolutional() -> tuple[keras.Model, Data]:
    layers = [
        keras.Input((6, 6, 1)),
        keras.layers.Conv2D(3, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1),
    ]
    return _built(layers, (6, 6, 1))


def embedding() -> tuple[keras.Model, Data]:
    """Return an embedding model of 5 tokens, which repeat in every batch of sequences of 9."""
    layers = [
        keras.Input((9,), dtype="int32"),
        keras.layers.Embedding(5, 3),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1),
    ]
    model, (_, y) = _built(layers, (9,))
    return model, (np.random.default_rng(1).integers(0, 5, (24, 9)), y)


MODELS: dict[str, Callable[[], tuple[keras.Model, Data]]] = {
    each.__name__: each for each in (dense, recurrent, convolutional, embedding)
}


def of_backend(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `compile` without those that torch lacks or compiles for a minute."""
    left_out = ("steps_per_execution", "jit_compile") if keras.backend.backend() == "torch" else ()
    return {name: value for name, value in options.items() if name not in left_out}


def compiled(name: str, *, optimizer: Any = None, **options: Any) -> tuple[keras.Model, Data]:
    """Return the compiled model of this name, with the same initial weights at every call."""
    keras.utils.set_random_seed(3)
    model, data = MODELS[name]()
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **of_backend(options))
    return model, data


def fit(model: keras.Model, data: Data, **options: Any) -> keras.callbacks.History:
    """Train on batches of eight examples, without shuffling and without printed output."""
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data, **options)


def _built(layers: list[Any], shape: tuple[int, ...]) -> tuple[keras.Model, Data]:
    random = np.random.default_rng(0)
    x = random.normal(size=(24, *shape)).astype("float32")
    y = random.normal(size=(24, 1)).astype("float32")
    return keras.Sequential(layers), (x, y)
