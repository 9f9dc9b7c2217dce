"""Context managers that run a model eagerly and restore its state."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.names import unlisted_variables


@contextmanager
def functions_run_eagerly() -> Iterator[None]:
    """Run every `tf.function` eagerly inside the block."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def forward_pass_undone(model: keras.Model) -> Iterator[None]:
    """Restore moving averages, seeds, metrics and layer states after the block."""
    every = [
        *model.non_trainable_variables,
        *model.metrics_variables,
        *unlisted_variables(model),
    ]
    variables = {id(each): each for each in every}.values()
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
