"""Tools for planting a fault in a model, so that the second batch is the first bad one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

BATCH, BATCHES, BAD = 4, 3, 1
ROW = BAD * BATCH + 2  # index of the bad example
Data = dict[str, Any]
Built = tuple[keras.Model, Data]


@dataclass(frozen=True)
class Planted:
    """Planted fault and the expected verdict of its replay.

    Attributes:
        build: function that returns a compiled model and the arguments of `fit`.
        place: place in the verdict.
        layer: layer in the verdict.
        cause: name of the fault in the verdict.
        more: further attributes of the verdict.
        line: part of the source line that the verdict points to.
        step: number of the bad step.
    """

    build: Callable[[], Built]
    place: str
    layer: str | None
    cause: str
    more: dict[str, Any] = field(default_factory=dict)
    line: str | None = None
    step: int = BAD


def numbers(*shape: int, low: float = 0.5, high: float = 1.5) -> np.ndarray:
    """Return examples of this shape for all batches, drawn uniformly."""
    random = np.random.default_rng(0)
    return random.uniform(low, high, (BATCH * BATCHES, *shape)).astype("float32")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros((BATCH * BATCHES, *shape), "float32")


def with_bad(x: np.ndarray, value: float) -> np.ndarray:
    """Set the first number of the bad example to this value."""
    x[(ROW, *[0] * (x.ndim - 1))] = value
    return x


def with_row(x: np.ndarray, value: float) -> np.ndarray:
    """Set all numbers of the bad example to this value."""
    x[ROW] = value
    return x


def compiled(model: keras.Model, x: Any, loss: Any = "mse", **options: Any) -> Built:
    """Compile the model with a learning rate of 0 and return it with its data."""
    model.compile(keras.optimizers.SGD(0.0), loss, **{"jit_compile": False, **options})
    examples = len(keras.tree.flatten(x)[0])
    return model, {"x": x, "y": np.ones((examples, *model.output_shape[1:]), "float32")}


def stacked(some: list[layers.Layer], x: np.ndarray, loss: Any = "mse", **options: Any) -> Built:
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *some])
    return compiled(model, x, loss, **options)


def dense(name: str = "last", kernel: float | None = None, **options: Any) -> layers.Layer:
    if kernel is not None:
        options["kernel_initializer"] = keras.initializers.Constant(kernel)
    return layers.Dense(2, name=name, **options)
