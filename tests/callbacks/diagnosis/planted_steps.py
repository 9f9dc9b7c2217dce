"""Steps that fail in the update, the loss or the data, with their remedies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

if keras.backend.backend() == "tensorflow":  # the train steps below use its tape
    import tensorflow as tf

Step = tuple[keras.Model, Any]  # a compiled model, and a batch


@dataclass(frozen=True)
class Failing:
    """Step that fails, and the expected verdict of its replay.

    Attributes:
        build: function that returns the step; its argument says if the remedy is applied.
        place: place in the verdict.
        cause: name of the fault.
        advice: part of the remedy's text.
        variable: variable in the verdict.
        layer: layer in the verdict.
        line: part of the source line that the verdict points to.
    """

    build: Callable[[bool], Step]
    place: str
    cause: str
    advice: str
    variable: str | None = None
    layer: str | None = None
    line: str | None = None


def batch(*shape: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    x = scale * np.random.default_rng(0).normal(size=(8, *(shape or (3,))))
    return x.astype("float32"), x.reshape(8, -1)[:, :1].astype("float32")


def network(optimizer: Any, loss: Any = "mse", *first: layers.Layer, **options: Any) -> keras.Model:
    body = layers.Dense(4, "relu", name="body", **options)
    model = keras.Sequential([keras.Input((3,)), *(first or [body]), layers.Dense(1, name="out")])
    model.compile(optimizer, loss, jit_compile=False)
    return model


# Faults of the update.


def rate_of_a_callback(remedied: bool) -> Step:
    model = network(keras.optimizers.Adam(1e-3))
    model.optimizer.learning_rate = 1e-3 if remedied else float("nan")
    return model, batch()


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, first: int) -> None:
        self.first = first

    def __call__(self, step: Any) -> Any:
        return 1e-3 / ops.cast(step + self.first, "float32")


def rate_of_a_schedule(remedied: bool) -> Step:
    return network(keras.optimizers.SGD(Decay(int(remedied)))), batch()


def epsilon_of_0(remedied: bool) -> Step:
    adam = keras.optimizers.Adam(1e-3, epsilon=1e-7 if remedied else 0.0)
    return network(adam, kernel_initializer="zeros"), batch()


def epsilon_in_float16(remedied: bool) -> Step:
    adam = keras.optimizers.Adam(1e-3, epsilon=1e-4 if remedied else 1e-8)
    half = layers.Dense(4, "relu", kernel_initializer="zeros", name="body", dtype="float16")
    return network(adam, "mse", half), batch()


class Unit(keras.constraints.Constraint):
    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def __call__(self, w: Any) -> Any:
        return w / (ops.norm(w, axis=0, keepdims=True) + self.epsilon)


def constraint(remedied: bool) -> Step:
    options = {"kernel_initializer": "zeros", "kernel_constraint": Unit(1e-7 * remedied)}
    return network(keras.optimizers.SGD(1e-2), **options), batch()


def rate_of_1e38(remedied: bool) -> Step:
    return network(keras.optimizers.SGD(1e-6 if remedied else 1e38)), batch(scale=100.0)


def large_gradients(remedied: bool) -> Step:
    clip = {"clipvalue": 1.0} if remedied else {}
    x, y = batch()
    return network(keras.optimizers.Adam(1e-3, **clip), "mae"), (x, y, np.full(8, 1e25, "float32"))


class ByHand(keras.Model):
    """Model that updates its weights without an optimizer."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.body, self.rate = layers.Dense(1, name="body"), rate

    def call(self, x: Any) -> Any:
        return self.body(x)

    def train_step(self, data: Any) -> Any:
        x, y, *_ = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x))
        variables = self.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(self.rate * gradient)
        return {"loss": loss}


def update_by_hand(remedied: bool) -> Step:
    model = ByHand(1e-3 if remedied else 3e38)
    x, y = batch()
    model(x)
    model.compile("sgd", "mse", jit_compile=False)
    return model, (x, 100 * y)


class Codes(layers.Layer):
    """Layer with a codebook that moves towards the nearest examples."""

    def __init__(self, least: float) -> None:
        super().__init__(name="codes")
        self.least = least

    def build(self, shape: Any) -> None:
        far = keras.initializers.Constant([[0.0] * 3, [1e3] * 3])
        self.book = self.add_weight(name="book", shape=(2, 3), initializer=far, trainable=False)

    def call(self, z: Any) -> Any:
        distance = ops.sum(ops.square(z[:, None] - self.book), -1)
        nearest = ops.one_hot(ops.argmin(distance, 1), 2)
        quantised = ops.matmul(nearest, self.book)
        count = ops.maximum(ops.sum(nearest, 0)[:, None], self.least)
        total = ops.matmul(ops.transpose(nearest), z)
        self.book.assign(0.9 * self.book + 0.1 * total / count)
        return z + ops.stop_gradient(quantised - z)


def codebook(remedied: bool) -> Step:
    first = (layers.Dense(3, name="body"), Codes(float(remedied)))
    return network(keras.optimizers.SGD(3e-2), "mse", *first), batch()


# Faults of the loss.


class MeanOfBatch(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.body = layers.Dense(1, name="body")

    def call(self, x: Any) -> Any:
        return self.body(x)

    def train_step(self, data: Any) -> Any:
        x, y, *_ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - self(x)))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def empty_batch(remedied: bool) -> Step:
    model = MeanOfBatch()
    x, y = batch()
    model(x)
    model.compile("sgd", "mse", jit_compile=False)
    return model, (x, y) if remedied else (x[:0], y[:0])


def mean_of_selected(y: Any, p: Any) -> Any:
    return tf.reduce_mean(tf.square(y - p)[y > 1e3])


def safe_mean_of_selected(y: Any, p: Any) -> Any:
    selected = tf.square(y - p)[y > 1e3]
    return tf.reduce_sum(selected) / tf.maximum(tf.cast(tf.size(selected), p.dtype), 1.0)


def empty_selection(remedied: bool) -> Step:
    loss = safe_mean_of_selected if remedied else mean_of_selected
    return network(keras.optimizers.SGD(1e-3), loss), batch()


def large_targets(remedied: bool) -> Step:
    x, y = batch()
    return network(keras.optimizers.SGD(1e-3), "mae"), (x, y if remedied else y * 0 + 2e38)


def classes(mask: list[float], label: int) -> Step:
    """Return a classifier whose mask sets logits to -inf, and a batch with one label."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked = layers.Dense(3, lambda x: ops.where(np.array(mask) > 0, x, -np.inf), name="body")
    model = keras.Sequential([keras.Input((3,)), masked])
    model.compile(keras.optimizers.SGD(1e-2), loss, jit_compile=False)
    return model, (batch()[0], np.full(8, label, "int32"))


def mask_over_the_label(remedied: bool) -> Step:
    return classes([1, 1, float(remedied)], 2)


def label_out_of_range(remedied: bool) -> Step:
    return classes([1, 1, 1], 2 if remedied else 3)


# Faults of the data.


def masked_too_late(y: Any, p: Any) -> Any:
    return ops.where(ops.isnan(y), 0.0, ops.square(y - p))


def masked_in_time(y: Any, p: Any) -> Any:
    return ops.square(ops.where(ops.isnan(y), p, y) - p)


def missing_targets(remedied: bool) -> Step:
    loss = masked_in_time if remedied else masked_too_late
    x, y = batch()
    return network(keras.optimizers.SGD(1e-3), loss), (x, np.where(y > 0.5, np.float32(np.nan), y))


def class_weight(remedied: bool) -> Step:
    x, y = batch()
    weights = np.full(8, 1.0 if remedied else np.inf, "float32")
    return network(keras.optimizers.SGD(1e-3)), (x, y, weights)


# Overflows that occur with the initial weights.


def recurrent(remedied: bool) -> Step:
    activation = "tanh" if remedied else "relu"
    growing = keras.initializers.Constant(1e3)
    rnn = layers.SimpleRNN(2, activation, recurrent_initializer=growing, name="body")
    model = keras.Sequential([keras.Input((32, 1)), rnn, layers.Dense(1, name="out")])
    model.compile(keras.optimizers.SGD(1e-2), "mse", jit_compile=False)
    return model, batch(32, 1)


def through_time(remedied: bool) -> Step:
    """Return a model in which 1e-30 grows to 1e10 forward, and 1 grows to 1e40 backward."""
    kernel = "orthogonal" if remedied else keras.initializers.Identity(10.0)
    options = {"kernel_initializer": "ones", "recurrent_initializer": kernel, "name": "body"}
    rnn = layers.SimpleRNN(1, "relu", **options)
    out = layers.Dense(1, kernel_initializer="ones", name="out")
    model = keras.Sequential([keras.Input((42, 1)), rnn, out])
    model.compile(keras.optimizers.SGD(1e-2), "mae", jit_compile=False)
    return model, (np.full((8, 42, 1), 1e-33, "float32"), np.ones((8, 1), "float32"))


def large_inputs(remedied: bool) -> Step:
    large = keras.initializers.Constant(1e18)
    model = network(keras.optimizers.Adam(1e-3), "mae", kernel_initializer=large)
    return model, batch(scale=1.0 if remedied else 1e21)


def large_weights(remedied: bool) -> Step:
    kernel = "glorot_uniform" if remedied else keras.initializers.Constant(1e25)
    some = [layers.Dense(4, kernel_initializer=kernel, name=name) for name in ("body", "second")]
    return network(keras.optimizers.SGD(1e-2), "mse", *some), batch()


def gradient_in_float16(remedied: bool) -> Step:
    dtype = "mixed_bfloat16" if remedied else "mixed_float16"
    model = network("sgd", "mse", layers.Dense(4, name="body", dtype=dtype))
    model.compile(keras.optimizers.SGD(1e-9), "mse", loss_weights=[1e3], jit_compile=False)
    x, y = batch()
    return model, (10 * x, 100 * y)


def large_loss_weight(remedied: bool) -> Step:
    out = layers.Dense(1, kernel_initializer="zeros", name="out")
    model = keras.Sequential([keras.Input((3,)), out])
    weights = [1.0 if remedied else 1e38]
    model.compile(keras.optimizers.SGD(1e-2), "mae", loss_weights=weights, jit_compile=False)
    x, y = batch()
    return model, (x, y) if remedied else (100 * x, 1e-3 * y)


OVERFLOW = "overflow of the optimizer's update"
KERNEL = "body/kernel"

FAILING = [
    Failing(rate_of_a_callback, "optimizer", "the learning rate is nan", "finite rate", KERNEL),
    Failing(
        rate_of_a_schedule,
        "optimizer",
        "the learning rate is inf",
        "what it divides by",
        KERNEL,
        line="1e-3 / ops.cast(step",
    ),
    Failing(epsilon_of_0, "optimizer", "the optimizer divides 0 by 0", "epsilon=1e-7", KERNEL),
    Failing(
        epsilon_in_float16, "optimizer", "the optimizer divides 0 by 0", "epsilon=1e-4", KERNEL
    ),
    Failing(
        constraint,
        "optimizer",
        "a constraint divides by a norm of 0",
        "norm + epsilon",
        KERNEL,
        line="return w / (ops.norm(w",
    ),
    Failing(rate_of_1e38, "optimizer", OVERFLOW, "lower it", KERNEL),
    Failing(large_gradients, "optimizer", OVERFLOW, "clipvalue=1.0", line="square("),
    Failing(update_by_hand, "optimizer", OVERFLOW, "lower", KERNEL, line="self.rate * gradient"),
    Failing(
        codebook,
        "forward",
        "0 divided by 0",
        "maximum(count, 1)",
        "codes/book",
        layer="codes",
        line="total / count",
    ),
    Failing(empty_batch, "loss", "a batch without examples", "drop_remainder=True"),
    Failing(
        empty_selection,
        "loss",
        "mean of an empty tensor",
        "maximum(count, 1)",
        line="tf.reduce_mean",
    ),
    Failing(
        mask_over_the_label,
        "forward",
        "an intentional infinity reaches the loss",
        "check the mask",
        layer="body",
        line="ops.where",
    ),
    Failing(
        label_out_of_range,
        "loss",
        "an operation rejects its inputs",
        "class numbers or indices outside their range",
    ),
    Failing(gradient_in_float16, "backward", "overflow of float16", "mixed_bfloat16", layer="body"),
    Failing(large_targets, "loss", "overflow", "standardise the targets"),
    Failing(
        missing_targets,
        "data",
        "NaN in the data that a where() replaces too late",
        "y = where(isnan(y), prediction, y)",
        line="ops.square(y - p)",
    ),
    Failing(class_weight, "data", "a sample weight is not finite", "class_weight"),
    Failing(
        recurrent,
        "forward",
        "overflow",
        "activation='tanh'",
        layer="body/simple_rnn_cell",
    ),
    Failing(large_inputs, "forward", "overflow", "Normalise the inputs", layer="body"),
    Failing(large_weights, "forward", "overflow", "smaller initial weights", layer="second"),
    Failing(
        through_time,
        "backward",
        "overflow",
        "recurrent_initializer='orthogonal'",
        layer="body/simple_rnn_cell",
    ),
    Failing(large_loss_weight, "backward", "overflow", "lower loss_weights", layer="out"),
]
