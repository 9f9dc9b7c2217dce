"""Models with custom train steps."""

import jax
import keras
from keras import layers, optimizers


class GAN(keras.Model):
    """Two networks with an optimizer each."""

    def __init__(self):
        super().__init__()
        self.generator = layers.Dense(4, name="generator")
        self.critic = layers.Dense(1, name="critic")

    def build(self, shape):
        self.generator.build(shape)
        self.critic.build(shape)

    def call(self, x):
        return self.critic(self.generator(x))

    def compile(self):
        super().compile(optimizer=optimizers.SGD(0.01), loss="mse", jit_compile=True)
        self.of_critic = optimizers.SGD(0.02)
        self.optimizer.build(self.generator.trainable_variables)
        self.of_critic.build(self.critic.trainable_variables)

    def train_step(self, state, data):
        variables, others, of_generator, metrics = state
        x, _ = data

        def loss_of(part, rest, sign):
            made = x @ (part if sign < 0 else rest)[0]
            scores = made @ (rest if sign < 0 else part)[0]
            return sign * keras.ops.mean(scores)

        generator, critic = variables[:2], variables[2:]
        _, grads = jax.value_and_grad(loss_of)(critic, generator, 1.0)
        held = [each.value for each in self.of_critic.variables]
        critic, _ = self.of_critic.stateless_apply(held, grads, critic)
        loss, grads = jax.value_and_grad(loss_of)(generator, critic, -1.0)
        generator, of_generator = self.optimizer.stateless_apply(of_generator, grads, generator)
        return {"loss": loss}, ([*generator, *critic], others, of_generator, metrics)
