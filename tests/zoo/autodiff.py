"""Gradients on every Keras backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def gradients(
    loss: Callable[[Sequence[Any]], Any], layer: keras.layers.Layer, tensors: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the gradients of a scalar with respect to tensors and a layer's trainable weights.

    Args:
        loss: function of the tensors.
        layer: built layer that `loss` calls.
        tensors: arguments of `loss`.
    """
    found = _BY_BACKEND[keras.backend.backend()](loss, layer, list(tensors))
    arrays = [np.zeros(1) if each is None else keras.ops.convert_to_numpy(each) for each in found]
    return arrays[: len(tensors)], arrays[len(tensors) :]


def _tensorflow(loss: Callable, layer: Any, tensors: list[np.ndarray]) -> list[Any]:
    import tensorflow as tf

    watched = [tf.constant(each) for each in tensors]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        value = loss(watched)
    return tape.gradient(value, [*watched, *(w.value for w in layer.trainable_weights)])


def _jax(loss: Callable, layer: Any, tensors: list[np.ndarray]) -> list[Any]:
    import jax

    def of_all(watched: list[Any], weights: list[Any]) -> Any:
        pairs = list(zip(layer.trainable_weights, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return loss(watched)

    weights = [weight.value for weight in layer.trainable_weights]
    # No compilation of the whole: JAX 0.10.2 then errs in long sums on CPUs (jax-ml/jax#39103).
    found = jax.grad(of_all, argnums=(0, 1))([jax.numpy.asarray(x) for x in tensors], weights)
    return [*found[0], *found[1]]


def _torch(loss: Callable, layer: Any, tensors: list[np.ndarray]) -> list[Any]:
    import torch

    watched = [torch.tensor(each, requires_grad=True) for each in tensors]
    weights = [weight.value for weight in layer.trainable_weights]
    return list(torch.autograd.grad(loss(watched), [*watched, *weights], allow_unused=True))


_BY_BACKEND: dict[str, Callable[..., list[Any]]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
