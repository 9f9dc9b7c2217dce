"""Faults in custom parts that call TensorFlow, whose code a capsule does not contain."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from planted import Built, Planted, dense, numbers, stacked, with_bad, with_row
from planted_in_own import own


def gradient_of_ones_own() -> Built:
    @tf.custom_gradient
    def function(x: Any) -> Any:
        return tf.identity(x), lambda gradient: gradient / x

    return own(function, with_bad(numbers(3), 0))


class Again(layers.Layer):
    """Layer that recomputes its outputs in the backward pass."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        return tf.recompute_grad(lambda x: tf.sqrt(1.0 * x))(x * self.scale)


def root_computed_again() -> Built:
    return stacked([Again(name="again"), dense()], with_bad(numbers(3), 0))


def mapped_by_autograph() -> Built:
    return own(lambda x: tf.map_fn(lambda row: row / ops.sum(row), x), with_row(numbers(3), 0))


class Inline(keras.Model):
    """Model that computes its loss in `train_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = dense("body", 1.0, activation="relu")

    def call(self, x: Any) -> Any:
        return self.body(x)

    def train_step(self, data: Any) -> Any:
        x, _ = data
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.math.log(self(x, training=True)))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def train_step_of_ones_own() -> Built:
    model = Inline()
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return model, {"x": with_bad(numbers(3), -10), "y": numbers(2)}


IN_TENSORFLOW = [
    Planted(gradient_of_ones_own, "backward", "own", "division by 0", line="gradient / x"),
    Planted(mapped_by_autograph, "forward", "own", "0 divided by 0", line="tf.map_fn"),
    Planted(root_computed_again, "backward", "again", "gradient of a root at 0", line="tf.sqrt"),
    Planted(train_step_of_ones_own, "loss", None, "logarithm of 0", line="tf.math.log(self"),
]
