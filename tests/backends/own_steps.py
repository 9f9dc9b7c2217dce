"""Models with custom train steps on JAX and torch."""

from typing import Any

import keras
from keras import layers, ops, optimizers

if keras.backend.backend() == "jax":
    import jax
elif keras.backend.backend() == "torch":
    import torch


class OwnStep(keras.Sequential):
    """Model with its own train step, as the guides to custom train steps show it."""

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "torch":
            return self._torch_step(*args)
        state, (x, y) = args
        variables, others, optimizer_variables, metrics = state

        def loss_of(variables: Any, others: Any) -> Any:
            predicted, others = self.stateless_call(variables, others, x, training=True)
            return ops.mean(ops.square(predicted - y)), others

        (loss, others), grads = jax.value_and_grad(loss_of, 0, True)(variables, others)
        variables, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, grads=grads, trainable_variables=variables
        )
        return {"loss": loss}, (variables, others, optimizer_variables, metrics)

    def _torch_step(self, data: Any) -> Any:
        x, y = data
        self.zero_grad()
        loss = ops.mean(ops.square(self(x, training=True) - y))
        loss.backward()
        variables = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([each.value.grad for each in variables], variables)
        return {"loss": loss}


class UnreadLoss(keras.Sequential):
    """Model whose train step computes the gradients without a loss that can be recorded."""

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "torch":
            ((x, y),) = args
            variables = list(self.trainable_weights)
            loss = ops.mean(ops.square(self(x, training=True) - y))
            grads = torch.autograd.grad(loss, [each.value for each in variables])
            with torch.no_grad():
                self.optimizer.apply(list(grads), variables)
            return {"loss": loss}
        (variables, others, optimizer_variables, metrics), (x, y) = args

        def loss_of(variables: Any) -> Any:
            predicted, _ = self.stateless_call(variables, others, x, training=True)
            return ops.mean(ops.square(predicted - y))

        variables, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, grads=jax.grad(loss_of)(variables), trainable_variables=variables
        )
        return {"loss": loss_of(variables)}, (variables, others, optimizer_variables, metrics)


class GAN(keras.Model):
    """Two networks with an optimizer each."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = layers.Dense(4, name="generator")
        self.critic = layers.Dense(1, name="critic")

    def build(self, shape: Any) -> None:
        self.generator.build(shape)
        self.critic.build(shape)

    def call(self, x: Any) -> Any:
        return self.critic(self.generator(x))

    def compile(self, *, builds: bool = True) -> None:
        is_jax = keras.backend.backend() == "jax"
        super().compile(optimizer=optimizers.SGD(0.01), loss="mse", jit_compile=is_jax)
        self.of_critic = optimizers.SGD(0.02)
        self.optimizer.build(self.generator.trainable_variables)
        if builds:
            self.of_critic.build(self.critic.trainable_variables)

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "torch":
            return self._torch_step(*args)
        state, (x, _) = args
        variables, others, of_generator, metrics = state

        def loss_of(part: Any, rest: Any, sign: float) -> Any:
            made = x @ (part if sign < 0 else rest)[0]
            scores = made @ (rest if sign < 0 else part)[0]
            return sign * ops.mean(scores)

        generator, critic = variables[:2], variables[2:]
        _, grads = jax.value_and_grad(loss_of)(critic, generator, 1.0)
        held = [each.value for each in self.of_critic.variables]
        critic, _ = self.of_critic.stateless_apply(held, grads, critic)
        loss, grads = jax.value_and_grad(loss_of)(generator, critic, -1.0)
        generator, of_generator = self.optimizer.stateless_apply(of_generator, grads, generator)
        return {"loss": loss}, ([*generator, *critic], others, of_generator, metrics)

    def _torch_step(self, data: Any) -> Any:
        x, _ = data
        loss = None
        for optimizer, network, sign in (
            (self.of_critic, self.critic, 1.0),
            (self.optimizer, self.generator, -1.0),
        ):
            self.zero_grad()
            made = x @ self.generator.kernel.value
            scores = made @ self.critic.kernel.value
            loss = sign * ops.mean(scores)
            loss.backward()
            variables = network.trainable_variables
            with torch.no_grad():
                optimizer.apply([_gradient_of(each) for each in variables], variables)
        return {"loss": loss}


def _gradient_of(variable: Any) -> Any:
    found = variable.value.grad
    return ops.zeros_like(variable.value) if found is None else found
