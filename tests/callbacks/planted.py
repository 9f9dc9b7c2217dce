"""How a fault is planted in a model: all goes well until the second batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

BATCH, BATCHES, BAD = 4, 3, 1
ROW = BAD * BATCH + 2  # the example that is bad
Data = dict[str, Any]
Built = tuple[keras.Model, Data]


@dataclass(frozen=True)
class Planted:
    """A fault, and what a replay is to say about it.

    Attributes:
        build: makes a compiled model, and what `fit` is called with.
        place: the verdict's.
        layer: the verdict's.
        cause: the name of the verdict's fault.
        more: more of its attributes.
        line: a part of the line of code that it points to.
        step: the step that is bad.
    """

    build: Callable[[], Built]
    place: str
    layer: str | None
    cause: str
    more: dict[str, Any] = field(default_factory=dict)
    line: str | None = None
    step: int = BAD


def numbers(*shape: int, low: float = 0.5, high: float = 1.5) -> np.ndarray:
    """Examples of this shape, for all batches."""
    random = np.random.default_rng(0)
    return random.uniform(low, high, (BATCH * BATCHES, *shape)).astype("float32")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros((BATCH * BATCHES, *shape), "float32")


def with_bad(x: np.ndarray, value: float) -> np.ndarray:
    """With another first number in the bad example."""
    x[(ROW, *[0] * (x.ndim - 1))] = value
    return x


def with_row(x: np.ndarray, value: float) -> np.ndarray:
    """With another bad example."""
    x[ROW] = value
    return x


def compiled(model: keras.Model, x: Any, loss: Any = "mse", **options: Any) -> Built:
    """The model, whose weights stay as they are, and data for it."""
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
