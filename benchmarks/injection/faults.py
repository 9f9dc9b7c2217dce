"""Components of faulty models, and helpers that only some runs need."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
from keras import ops

ON_JAX = keras.backend.backend() == "jax"
if ON_JAX:
    import jax
else:
    import tensorflow as tf

REPLICAS = 2


def prepare() -> None:
    """Make TensorFlow deterministic, and split its CPU into two logical devices."""
    if ON_JAX:
        return
    tf.config.experimental.enable_op_determinism()
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(cpu, parts)


# Two strategies over the same CPU devices in one process break their collectives.
@cache
def strategy() -> "tf.distribute.Strategy":
    """Return the only multi-replica strategy of this process."""
    return tf.distribute.MirroredStrategy([f"CPU:{replica}" for replica in range(REPLICAS)])


@contextmanager
def scaled_policy() -> Iterator[None]:
    """Create layers in float16 inside this context; the optimizer must scale the loss."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def unguarded_crossentropy(labels: Any, logits: Any) -> Any:
    """Compute cross-entropy without an epsilon in the log."""
    picked = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), logits.shape[-1])
    return -ops.sum(picked * ops.log(ops.softmax(logits)), axis=-1)


def masked_mean_error(targets: Any, outputs: Any) -> Any:
    """Compute the mean error over the examples with a target; 0 / 0 if a batch has none."""
    there = ops.cast(targets > -900.0, outputs.dtype)
    return ops.sum(there * ops.square(outputs - targets)) / ops.sum(there)


def poisson_likelihood(counts: Any, rates: Any) -> Any:
    """Compute the negative log-likelihood of counts for rates that can be zero."""
    return ops.mean(rates - counts * ops.log(rates))


class Distance(keras.layers.Layer):
    """Euclidean distance of two vectors, without an epsilon in the root."""

    def call(self, left: Any, right: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(left - right), axis=-1, keepdims=True))


class Detached(keras.layers.Layer):
    """Layer that passes its inputs on but stops the gradient."""

    def call(self, inputs: Any) -> Any:
        return ops.stop_gradient(inputs)


class Rounded(keras.layers.Layer):
    """Layer that rounds its inputs: the gradient is zero or missing."""

    def call(self, inputs: Any) -> Any:
        return ops.cast(ops.cast(inputs, "int32"), "float32")


class Unused(keras.layers.Layer):
    """Dense layer with a second kernel that it never uses."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.dense = keras.layers.Dense(16, "relu")
        self.gate = self.add_weight(shape=(shape[-1], 16), name="gate_kernel")
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


class CustomStep(keras.Model):
    """Model with a custom train step, which does not call `scale_loss`."""

    def train_step(self, *arguments: Any) -> Any:
        return self._jax_step(*arguments) if ON_JAX else self._tensorflow_step(*arguments)

    def _jax_step(self, state: Any, data: Any) -> Any:
        variables, others, of_optimizer, metrics = state
        x, y = data

        def error(variables: Any, others: Any) -> Any:
            outputs, others = self.stateless_call(variables, others, x, training=True)
            return ops.mean(ops.square(outputs - y)), others

        (loss, others), gradients = jax.value_and_grad(error, has_aux=True)(variables, others)
        variables, of_optimizer = self.optimizer.stateless_apply(
            of_optimizer, self.changed(gradients), variables
        )
        return {"loss": loss}, (variables, others, of_optimizer, metrics)

    def _tensorflow_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(self.changed(tape.gradient(loss, variables)), variables)
        return {"loss": loss}

    def changed(self, gradients: list[Any]) -> list[Any]:
        """Return the gradients to apply."""
        return gradients


class ClippedByHand(CustomStep):
    """Model that clips its gradients in its train step."""

    def changed(self, gradients: list[Any]) -> list[Any]:
        norm = ops.sqrt(sum(ops.sum(ops.square(each)) for each in gradients))
        return [each * ops.minimum(1.0, 0.1 / norm) for each in gradients]


class KillUnits(keras.callbacks.Callback):
    """Set a layer's biases to -1000 before a train step, as one huge update would."""

    def __init__(self, layer: str, at: int) -> None:
        super().__init__()
        self._layer, self._at = layer, at

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == self._at:
            bias = self.model.get_layer(self._layer).bias
            bias.assign(ops.full(bias.shape, -1000.0))
