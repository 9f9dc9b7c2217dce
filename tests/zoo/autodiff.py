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
    return outputs_and_gradients(lambda watched: (loss(watched), []), layer, tensors)[1:]


def outputs_and_gradients(
    call: Callable[[Sequence[Any]], tuple[Any, list[Any]]],
    layer: keras.layers.Layer,
    tensors: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return outputs of `call`, and the gradients that `gradients` returns.

    Args:
        call: function of the tensors that returns a scalar loss and a list of outputs.
        layer: built layer that `call` calls.
        tensors: arguments of `call`.
    """
    outputs, found = _BY_BACKEND[keras.backend.backend()](call, layer, list(tensors))
    outputs = [keras.ops.convert_to_numpy(each) for each in outputs]
    arrays = [np.zeros(1) if each is None else keras.ops.convert_to_numpy(each) for each in found]
    return outputs, arrays[: len(tensors)], arrays[len(tensors) :]


def _tensorflow(call: Callable, layer: Any, tensors: list[np.ndarray]) -> tuple[list, list]:
    import tensorflow as tf

    watched = [tf.constant(each) for each in tensors]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        loss, outputs = call(watched)
    return outputs, tape.gradient(loss, [*watched, *(w.value for w in layer.trainable_weights)])


def _jax(call: Callable, layer: Any, tensors: list[np.ndarray]) -> tuple[list, list]:
    import jax

    def of_all(watched: list[Any], weights: list[Any]) -> Any:
        pairs = list(zip(layer.trainable_weights, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return call(watched)

    weights = [weight.value for weight in layer.trainable_weights]
    # No compilation of the whole: JAX 0.10.2 then errs in long sums on CPUs (jax-ml/jax#39103).
    differentiate = jax.grad(of_all, argnums=(0, 1), has_aux=True)
    found, outputs = differentiate([jax.numpy.asarray(x) for x in tensors], weights)
    return outputs, [*found[0], *found[1]]


def _torch(call: Callable, layer: Any, tensors: list[np.ndarray]) -> tuple[list, list]:
    import torch

    watched = [torch.tensor(each, requires_grad=True) for each in tensors]
    weights = [weight.value for weight in layer.trainable_weights]
    loss, outputs = call(watched)
    return outputs, list(torch.autograd.grad(loss, [*watched, *weights], allow_unused=True))


_BY_BACKEND: dict[str, Callable[..., tuple[list[Any], list[Any]]]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
