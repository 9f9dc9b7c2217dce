"""Faults in custom parts that call JAX, whose code a capsule does not contain."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers
from planted import Built, Planted, dense, numbers, stacked, with_bad, with_row
from planted_in_own import own


def gradient_of_ones_own() -> Built:
    @jax.custom_gradient
    def function(x: Any) -> Any:
        return x, lambda gradient: gradient / x

    return own(function, with_bad(numbers(3), 0))


class Again(layers.Layer):
    """Layer that recomputes its outputs in the backward pass."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        return jax.checkpoint(lambda x: jnp.sqrt(1.0 * x))(x * self.scale)


def root_computed_again() -> Built:
    return stacked([Again(name="again"), dense()], with_bad(numbers(3), 0))


def mapped() -> Built:
    return own(partial(jax.lax.map, lambda row: row / jnp.sum(row)), with_row(numbers(3), 0))


class Inline(keras.Model):
    """Model that computes its loss in `train_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = dense("body", 1.0, activation="relu")

    def call(self, x: Any) -> Any:
        return self.body(x)

    def train_step(self, state: Any, data: Any) -> Any:
        variables, others, of_optimizer, metrics = state

        def loss_of(variables: Any) -> Any:
            outputs, _ = self.stateless_call(variables, others, data[0])
            return -jnp.mean(jnp.log(outputs))

        loss, grads = self.differentiate(loss_of)(variables)
        variables, of_optimizer = self.optimizer.stateless_apply(of_optimizer, grads, variables)
        return {"loss": loss}, (variables, others, of_optimizer, metrics)

    def differentiate(self, function: Any) -> Any:
        return jax.value_and_grad(function)


class WithoutValue(Inline):
    """Model that takes the gradient alone, and computes the loss again."""

    def differentiate(self, function: Any) -> Any:
        return lambda x: (function(x), jax.grad(function)(x))


class WithVjp(Inline):
    """Model with derivatives that the replay leaves to JAX."""

    def differentiate(self, function: Any) -> Any:
        def both(x: Any) -> Any:
            loss, pullback = jax.vjp(function, x)
            return loss, pullback(jnp.ones_like(loss))[0]

        return both


def train_step_of_ones_own(kind: type[Inline] = Inline) -> Built:
    model = kind()
    model(np.ones((1, 3), "float32"))
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return model, {"x": with_bad(numbers(3), -10), "y": numbers(2)}


def train_step_with_grad() -> Built:
    return train_step_of_ones_own(WithoutValue)


def train_step_with_vjp() -> Built:
    return train_step_of_ones_own(WithVjp)


IN_JAX = [
    Planted(gradient_of_ones_own, "backward", "own", "division by 0", line="gradient / x"),
    Planted(mapped, "forward", "own", "0 divided by 0", line="row / jnp.sum(row)"),
    Planted(root_computed_again, "backward", "again", "gradient of a root at 0", line="jnp.sqrt"),
    Planted(train_step_of_ones_own, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
    Planted(train_step_with_grad, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
    Planted(train_step_with_vjp, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
]
