"""Faults in custom layers, losses and train steps, whose code a capsule does not contain."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from planted import Built, Planted, dense, numbers, stacked, with_bad, with_row, zeros


class Own(layers.Layer):
    """Layer that applies a function to its inputs, multiplied by a weight of 1."""

    def __init__(self, function: Callable) -> None:
        super().__init__(name="own")
        self.function = function

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        return self.function(x * self.scale)


def own(function: Callable, x: np.ndarray) -> Built:
    return stacked([Own(function), dense()], x)


def log_of_zero() -> Built:
    return own(lambda x: ops.log(x), with_bad(numbers(3), 0))


def log_of_negative() -> Built:
    return own(lambda x: ops.log(x), with_bad(numbers(3), -1))


def zero_by_zero() -> Built:
    return own(lambda x: x / ops.sum(x, axis=-1, keepdims=True), with_row(numbers(3), 0))


def one_by_zero() -> Built:
    return own(lambda x: 1 / x, with_bad(numbers(3), 0))


def root_of_negative() -> Built:
    return own(lambda x: ops.sqrt(x), with_bad(numbers(3), -1))


def arccos_of_two() -> Built:
    return own(lambda x: ops.arccos(x), with_bad(numbers(3, low=0.1, high=0.9), 2))


def softmax_of_nothing() -> Built:
    def function(x: Any) -> Any:
        return ops.softmax(ops.where(x > 0, x, -np.inf))

    return own(function, with_row(numbers(3), -1))


def attention_to_nothing() -> Built:
    def function(x: Any) -> Any:
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        is_there = ops.any(x > 0, axis=-1)[:, None, :]
        return ops.matmul(ops.softmax(ops.where(is_there, scores, -np.inf)), x)

    return own(function, with_row(numbers(3, 3), 0))


def mask_over_the_right_class() -> Built:
    def function(x: Any) -> Any:
        return ops.where(x > 0, x, -np.inf)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, data = stacked([Own(function)], with_bad(numbers(3), -1), loss)
    return model, data | {"y": zeros(1)}


def root_at_zero() -> Built:
    return own(lambda x: ops.sqrt(x), with_bad(numbers(3), 0))


def power_at_zero() -> Built:
    return own(lambda x: x**0.5, with_bad(numbers(3), 0))


def norm_at_zero() -> Built:
    return own(lambda x: ops.norm(x, axis=-1, keepdims=True), with_row(numbers(3), 0))


def where_around_log() -> Built:
    return own(lambda x: ops.where(x > 0, ops.log(x), 0.0), with_bad(numbers(3), 0))


def where_around_division() -> Built:
    return own(lambda x: ops.where(x > 0, 1 / x, 0.0), with_bad(numbers(3), 0))


def arccos_at_one() -> Built:
    return own(lambda x: ops.arccos(x), with_bad(numbers(3, low=0.1, high=0.9), 1))


def negative_log_likelihood(y: Any, p: Any) -> Any:
    return -ops.mean(y * ops.log(p), axis=-1)


class Likelihood(keras.losses.Loss):
    def call(self, y: Any, p: Any) -> Any:
        return -ops.mean(y * ops.log(p), axis=-1)


def loss_function() -> Built:
    some = [dense(kernel=1.0, activation="relu")]
    return stacked(some, with_bad(numbers(3), -10), negative_log_likelihood)


def loss_class() -> Built:
    some = [dense(kernel=1.0, activation="relu")]
    return stacked(some, with_bad(numbers(3), -10), Likelihood())


IN_OWN = [
    Planted(log_of_zero, "forward", "own", "logarithm of 0", {"operation": "Log"}, "ops.log(x)"),
    Planted(
        log_of_negative,
        "forward",
        "own",
        "logarithm of a negative number",
        {"operation": "Log"},
        "ops.log(x)",
    ),
    Planted(zero_by_zero, "forward", "own", "0 divided by 0", line="x / ops.sum(x"),
    Planted(one_by_zero, "forward", "own", "division by 0", line="1 / x"),
    Planted(root_of_negative, "forward", "own", "root of a negative number", line="ops.sqrt(x)"),
    Planted(
        arccos_of_two, "forward", "own", "argument outside the function's domain", line="arccos"
    ),
    Planted(
        softmax_of_nothing,
        "forward",
        "own",
        "softmax over positions that are all masked",
        line="ops.softmax",
    ),
    Planted(
        attention_to_nothing,
        "forward",
        "own",
        "softmax over positions that are all masked",
        line="ops.softmax",
    ),
    Planted(
        mask_over_the_right_class,
        "forward",
        "own",
        "an intentional infinity reaches the loss",
        line="ops.where",
    ),
    Planted(
        root_at_zero,
        "backward",
        "own",
        "gradient of a root at 0",
        {"variable": "own/scale"},
        "ops.sqrt(x)",
    ),
    Planted(
        power_at_zero,
        "backward",
        "own",
        "gradient of a power at 0",
        {"gradient_of": "Pow"},
        "x**0.5",
    ),
    Planted(norm_at_zero, "backward", "own", "gradient of a root at 0", line="ops.norm"),
    Planted(
        where_around_log,
        "backward",
        "own",
        "gradient of a logarithm at 0",
        {"gradient_of": "Log"},
        "ops.where",
    ),
    Planted(
        where_around_division,
        "backward",
        "own",
        "gradient of a division by a number too small",
        line="1 / x",
    ),
    Planted(
        arccos_at_one,
        "backward",
        "own",
        "gradient at the bound of the function's domain",
        {"gradient_of": "Acos"},
        "ops.arccos(x)",
    ),
    Planted(loss_function, "loss", None, "logarithm of 0", line="y * ops.log(p)"),
    Planted(loss_class, "loss", None, "logarithm of 0", line="y * ops.log(p)"),
]
