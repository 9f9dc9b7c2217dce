"""Faults in custom layers and train steps that call torch."""

from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from planted import Built, Planted, dense, numbers, stacked, with_bad, with_row
from planted_in_own import own
from torch.utils.checkpoint import checkpoint


class DividedGradient(torch.autograd.Function):
    """Identity whose gradient is divided by the input."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradient / x


def gradient_of_ones_own() -> Built:
    return own(DividedGradient.apply, with_bad(numbers(3), 0))


class Again(layers.Layer):
    """Layer that recomputes its outputs in the backward pass."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        if x.device.type == "meta":
            return x
        return checkpoint(lambda x: torch.sqrt(1.0 * x), x * self.scale, use_reentrant=False)


def root_computed_again() -> Built:
    return stacked([Again(name="again"), dense()], with_bad(numbers(3), 0))


def written_in_place() -> Built:
    def logarithm(x: Any) -> Any:
        shifted = x.clone()
        shifted[:, 0] -= 1.0
        return shifted.log_()

    x = numbers(3, low=1.5, high=2.5)
    return own(logarithm, with_bad(x, 1.0))


class Inline(keras.Model):
    """Model that computes its loss in `train_step`."""

    activation: str | None = "relu"

    def __init__(self) -> None:
        super().__init__(name="inline")
        self.body = dense("body", 1.0, activation=self.activation)

    def call(self, x: Any) -> Any:
        return self.body(x)

    def loss_of(self, x: Any, y: Any) -> Any:
        return -torch.mean(torch.log(self(x)))

    def train_step(self, data: Any) -> Any:
        self.zero_grad()
        loss = self.loss_of(*data)
        loss.backward()
        with torch.no_grad():
            self.update(self.trainable_weights)
        return {"loss": loss}

    def update(self, variables: list[Any]) -> None:
        self.optimizer.apply([each.value.grad for each in variables], variables)


class ByHand(Inline):
    """Model that updates its weights without an optimizer."""

    def loss_of(self, x: Any, y: Any) -> Any:
        return torch.mean(torch.square(y - self(x)))

    def update(self, variables: list[Any]) -> None:
        for each in variables:
            each.value.sub_(3e38 * each.value.grad)


class Penalised(Inline):
    """Model whose loss contains a root of its gradient with respect to the inputs."""

    def loss_of(self, x: Any, y: Any) -> Any:
        x = x.clone().requires_grad_()
        output = torch.sum(torch.log(self(x) + 1e-3))
        (gradient,) = torch.autograd.grad(output, x, create_graph=True)
        return torch.mean(torch.sqrt(torch.sum(torch.square(gradient), dim=-1)))


def train_step_of_ones_own(kind: type[Inline] = Inline) -> Built:
    model = kind()
    model(np.ones((1, 3), "float32"))
    model.compile(keras.optimizers.SGD(0.0))
    return model, {"x": with_bad(numbers(3), -10), "y": numbers(2)}


def update_by_hand() -> Built:
    model, data = train_step_of_ones_own(ByHand)
    return model, {**data, "y": 100 * data["y"]}


def empty_batch() -> Built:
    model, data = train_step_of_ones_own(ByHand)
    return model, {name: each[:0] for name, each in data.items()}


def gradient_penalty() -> Built:
    return train_step_of_ones_own(Penalised)


def empty_selection() -> Built:
    return own(lambda x: torch.mean(x[x > 1e3]) + x, numbers(3))


def batch_normalization() -> Built:
    x = numbers(3)
    x[:, 0] = 1.0
    return stacked([layers.BatchNormalization(epsilon=0.0, name="norm"), dense()], x)


def not_positive_definite() -> Built:
    def factor(x: Any) -> Any:
        matrix = torch.reshape(x, (-1, 2, 2)) * torch.eye(2)
        return torch.reshape(torch.linalg.cholesky(matrix), (-1, 4))

    return own(factor, with_row(numbers(4), -1.0))


IN_TORCH = [
    Planted(gradient_of_ones_own, "backward", "own", "division by 0", line="gradient / x"),
    Planted(root_computed_again, "backward", "again", "gradient of a root at 0", line="torch.sqrt"),
    Planted(written_in_place, "forward", "own", "logarithm of 0", line="shifted.log_()"),
    Planted(train_step_of_ones_own, "loss", None, "logarithm of 0", line="torch.log(self(x))"),
    Planted(
        update_by_hand,
        "optimizer",
        None,
        "overflow of the optimizer's update",
        line="3e38 * each.value.grad",
    ),
    Planted(empty_batch, "loss", None, "a batch without examples"),
    Planted(empty_selection, "forward", "own", "mean of an empty tensor", line="torch.mean"),
    Planted(gradient_penalty, "backward", None, "gradient of a root at 0", line="torch.sqrt"),
    Planted(batch_normalization, "forward", "norm", "division by the root of a variance of 0"),
]
