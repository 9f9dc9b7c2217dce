"""Faults in custom layers and train steps that call JAX, whose code a capsule does not contain."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers
from planted import ROW, Built, Planted, dense, numbers, stacked, with_bad, with_row
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

    activation: str | None = "relu"

    def __init__(self) -> None:
        super().__init__(name="inline")
        self.body = dense("body", 1.0, activation=self.activation)

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


class RootWithVjp(WithVjp):
    """Model with the gradient of a root at 0, which the replay leaves to JAX."""

    activation = None

    def call(self, x: Any) -> Any:
        return jnp.exp(jnp.sqrt(jnp.square(self.body(x))))


class Concrete(Inline):
    """Model whose train step depends on a value, so that it runs only eagerly."""

    def train_step(self, state: Any, data: Any) -> Any:
        assert float(data[0][0, 0]) > 0
        return super().train_step(state, data)


def train_step_of_ones_own(kind: type[Inline] = Inline) -> Built:
    model = kind()
    model(np.ones((1, 3), "float32"))
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return model, {"x": with_bad(numbers(3), -10), "y": numbers(2)}


def train_step_with_grad() -> Built:
    return train_step_of_ones_own(WithoutValue)


def train_step_with_vjp() -> Built:
    return train_step_of_ones_own(WithVjp)


class ByHand(Inline):
    """Model that updates its weights without an optimizer."""

    rate = 3e38

    def train_step(self, state: Any, data: Any) -> Any:
        variables, others, *rest = state
        x, y = data

        def loss_of(variables: Any) -> Any:
            outputs, _ = self.stateless_call(variables, others, x)
            return jnp.mean(jnp.square(y - outputs))

        loss, grads = jax.value_and_grad(loss_of)(variables)
        pairs = zip(variables, grads, strict=True)
        variables = [variable - self.rate * gradient for variable, gradient in pairs]
        return {"loss": loss}, (variables, others, *rest)


def update_by_hand() -> Built:
    model, data = train_step_of_ones_own(ByHand)
    return model, {**data, "y": 100 * data["y"]}


def empty_batch() -> Built:
    model, data = train_step_of_ones_own(ByHand)
    return model, {name: each[:0] for name, each in data.items()}


class Penalised(Inline):
    """Model whose loss contains a norm of its gradient with respect to the inputs."""

    def train_step(self, state: Any, data: Any) -> Any:
        variables, others, of_optimizer, metrics = state

        def loss_of(variables: Any) -> Any:
            def output(x: Any) -> Any:
                return jnp.sum(jnp.log(self.stateless_call(variables, others, x)[0] + 1e-3))

            return jnp.mean(jnp.linalg.norm(jax.grad(output)(data[0]), axis=-1))

        loss, grads = jax.value_and_grad(loss_of)(variables)
        variables, of_optimizer = self.optimizer.stateless_apply(of_optimizer, grads, variables)
        return {"loss": loss}, (variables, others, of_optimizer, metrics)


def gradient_penalty() -> Built:
    """Return a model with a gradient of 0 for the bad example, whose norm has no gradient."""
    return train_step_of_ones_own(Penalised)


def halved(x: Any) -> Any:
    """Halve the numbers until the first is at most 1, and then take the logarithm."""
    small = jax.lax.while_loop(lambda x: x[0] > 1, lambda x: x / 2, jnp.ravel(x))
    return jax.lax.cond(small[0] > 0, jnp.log, jnp.negative, small).reshape(x.shape)


def in_a_branch_after_a_loop() -> Built:
    x = numbers(3)
    x[:, 0] = 4
    return own(lambda x: halved(jax.lax.stop_gradient(x)) + x, with_bad_last(x))


def with_bad_last(x: np.ndarray) -> np.ndarray:
    x[ROW, -1] = 0
    return x


def root_with_vjp() -> Built:
    model, data = train_step_of_ones_own(RootWithVjp)
    return model, {**data, "x": with_row(numbers(3), 0)}


IN_JAX = [
    Planted(gradient_of_ones_own, "backward", "own", "division by 0", line="gradient / x"),
    Planted(mapped, "forward", "own", "0 divided by 0", line="row / jnp.sum(row)"),
    Planted(root_computed_again, "backward", "again", "gradient of a root at 0", line="jnp.sqrt"),
    Planted(train_step_of_ones_own, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
    Planted(train_step_with_grad, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
    Planted(train_step_with_vjp, "loss", None, "logarithm of 0", line="jnp.log(outputs)"),
    Planted(
        update_by_hand,
        "optimizer",
        None,
        "overflow of the optimizer's update",
        line="self.rate * gradient",
    ),
    Planted(root_with_vjp, "forward", "inline", "division by 0", line="jnp.sqrt"),
    Planted(empty_batch, "loss", None, "a batch without examples"),
    Planted(gradient_penalty, "backward", None, "gradient of a root at 0", line="jnp.linalg.norm"),
    Planted(in_a_branch_after_a_loop, "forward", "own", "logarithm of 0", line="jax.lax.cond"),
]
