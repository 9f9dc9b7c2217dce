"""Access to the values of gradients, logs and losses."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.shadow import shadow


def with_values(gradient: Any, change: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """Return the gradient with changed values; an `IndexedSlices` stays one, None stays None."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return None if gradient is None else change(gradient)


def tensors_in(structure: Any) -> list[tf.Tensor]:
    """Return the tensors of a nested structure."""
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


def returned_loss(logs: Any) -> Any:
    """Return the losses in the return value of a train step; None if there are none.

    A custom train step need not call `compute_loss`. Its losses are then the value under "loss", or
    else the values under names that end in "_loss", as in `{"d_loss": ..., "g_loss": ...}`. A
    floating-point scalar that is returned instead of logs is the loss.

    Args:
        logs: the return value of `train_step`.
    """
    if tf.is_tensor(logs):
        return logs if logs.dtype.is_floating and logs.shape.rank == 0 else None
    if not isinstance(logs, dict):
        return None
    names = ["loss"] if "loss" in logs else [name for name in logs if str(name).endswith("_loss")]
    losses = [logs[name] for name in names if tf.is_tensor(logs[name])]
    return [each for each in losses if each.dtype.is_floating] or None


def mean_loss(value: Any, dtype: tf.DType | None = None) -> tf.Tensor | None:
    """Return the result of `compute_loss` as one number: the sum of the means of its losses.

    Return None if a custom `compute_loss` returns no loss.

    Args:
        value: the return value of `compute_loss`.
        dtype: dtype of the result; None for float32, or float64 if float32 does not hold the
            losses.
    """
    parts = [shadow(part) for part in keras.tree.flatten(value) if tf.is_tensor(part)]
    if dtype is None:
        dtype = tf.float64 if any(part.dtype.size > 4 for part in parts) else tf.float32
    means = [part if part.shape.rank == 0 else tf.reduce_mean(part) for part in parts]
    means = [tf.cast(mean, dtype) for mean in means]
    if len(means) > 1:
        return tf.add_n(means)
    return means[0] if means else None
