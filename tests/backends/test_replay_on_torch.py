"""Replay of capsules on torch: steps that call torch, and singular operations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("the tests call torch", allow_module_level=True)

import torch
from keras import layers
from planted_in_own import Own
from planted_in_torch import not_positive_definite

from gradkeeper.callbacks.diagnosis.replay import verdict_of_step


class Singular(NamedTuple):
    """Function of the rows of a batch, singular in one row.

    Attributes:
        function: the function.
        row: numbers of the singular row; other rows contain numbers from 0.2 to 0.8.
        cause: name of the fault.
        place: place in the verdict.
        operation: name of the operation, or of the one whose gradient is bad.
    """

    function: Callable[[Any], Any]
    row: list[float]
    cause: str
    place: str = "forward"
    operation: str | None = None


def matrices(x: Any) -> Any:
    return torch.reshape(x, (-1, 2, 2))


def with_itself(x: Any) -> Any:
    return matrices(x) @ matrices(x).mT


SINGULAR = {
    "log": Singular(torch.log, [0.0, 1.0], "logarithm of 0", operation="log"),
    "log of a negative": Singular(torch.log, [-1.0, 1.0], "logarithm of a negative number"),
    "log1p": Singular(torch.log1p, [-1.0, 1.0], "logarithm of 0", operation="log1p"),
    "sqrt": Singular(torch.sqrt, [-1.0, 1.0], "root of a negative number", operation="sqrt"),
    "sqrt at 0": Singular(
        torch.sqrt, [0.0, 1.0], "gradient of a root at 0", "backward", operation="sqrt"
    ),
    "pow": Singular(lambda x: x**-2, [0.0, 1.0], "division by 0", operation="pow"),
    "pow at 0": Singular(lambda x: x**0.5, [0.0, 1.0], "gradient of a power at 0", "backward"),
    "reciprocal": Singular(lambda x: 1 / x, [0.0, 1.0], "division by 0", operation="reciprocal"),
    "div": Singular(lambda x: x / x.sum(1, keepdim=True), [0.0, 0.0], "0 divided by 0"),
    "remainder": Singular(lambda x: torch.ones_like(x) % x, [0.0, 1.0], "division by 0"),
    "asin": Singular(torch.asin, [2.0, 0.5], "argument outside the function's domain"),
    "acos at 1": Singular(
        torch.acos, [1.0, 0.5], "gradient at the bound of the function's domain", "backward", "acos"
    ),
    "atanh": Singular(torch.atanh, [1.0, 0.5], "argument at the bound of the function's domain"),
    "exp": Singular(torch.exp, [1e3, 0.5], "overflow of an exponential", operation="exp"),
    "lgamma": Singular(torch.lgamma, [0.0, 0.5], "argument at a pole of the function"),
    "xlogy": Singular(lambda x: torch.xlogy(torch.ones_like(x), x), [0.0, 0.5], "logarithm of 0"),
    "softmax": Singular(
        lambda x: torch.softmax(torch.where(x > 0, x, -torch.inf), -1),
        [-1.0, -1.0],
        "softmax over positions that are all masked",
    ),
    "inverse": Singular(
        lambda x: torch.linalg.inv_ex(matrices(x))[0], [1.0, 1.0, 1.0, 1.0], "singular matrix"
    ),
    "eigenvalues": Singular(
        lambda x: torch.linalg.eigh(with_itself(x))[1],
        [1.0, 0.0, 0.0, 1.0],
        "gradient of the decomposition of a singular matrix",
        "backward",
    ),
}


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


@pytest.mark.parametrize("name", SINGULAR)
def test_the_cause_of_a_singular_operation(name):
    row = SINGULAR[name]
    x = np.random.default_rng(0).uniform(0.2, 0.8, (4, len(row.row))).astype("float32")
    x[2] = row.row
    some = [keras.Input(batch_shape=x.shape), Own(row.function), layers.Flatten()]
    model = keras.Sequential([*some, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.optimizer.build(model.trainable_variables)
    verdict = verdict_of_step(model, (torch.from_numpy(x), torch.ones((4, 1))))
    assert verdict.fault is not None
    assert (verdict.place, verdict.layer, verdict.fault.name) == (row.place, "own", row.cause)
    assert row.operation in (None, verdict.operation, verdict.gradient_of)
    assert verdict.source.is_own


def test_an_operation_that_raises_an_error():
    model, data = not_positive_definite()
    verdict = verdict_of_step(model, (torch.from_numpy(data["x"]), torch.from_numpy(data["y"])))
    assert (verdict.place, verdict.layer, verdict.operation) == ("forward", "own", "Cholesky")
    assert verdict.fault.name == "a matrix that cannot be inverted or decomposed"
    assert "not positive-definite" in verdict.message
    assert "torch.linalg.cholesky" in str(verdict.source)
