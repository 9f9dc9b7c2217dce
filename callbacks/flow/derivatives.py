"""Derivatives of unrolled models and of cells on the TensorFlow backend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.flow.unrolled import Calls, Layers, Place, cell_step, unrolled
from gradkeeper.callbacks.instrument.rollback import forward_pass_undone, functions_run_eagerly


@contextmanager
def unrolled_pass(model: keras.Model, layers: Layers) -> Iterator[Calls]:
    """Unroll the layers' loops inside the block, and restore the model's variables after it."""
    with functions_run_eagerly(), forward_pass_undone(model), unrolled(layers) as seen:
        yield seen


def state_gradients(
    model: keras.Model, layers: Layers, compute_loss: Callable[[], tf.Tensor]
) -> tuple[tf.Tensor, Calls, dict[str, list[dict[int, list[tf.Tensor]]]]]:
    """Compute the gradient of a loss with respect to every state, and restore the model.

    Args:
        model: the model.
        layers: the recurrent layers by path.
        compute_loss: calls the model and returns the loss.

    Returns:
        The loss; the calls of each layer; and the gradients of each call, structured like
        `Steps.states`.
    """
    with functions_run_eagerly(), forward_pass_undone(model):
        with tf.GradientTape() as tape:
            begun = set()

            def watched_step(
                place: Place, cell: Any, inputs: tf.Tensor, states: Any, training: bool
            ) -> tuple[Any, list[Any]]:
                tape.watch(inputs)  # the weights may be frozen
                if place[:2] not in begun:
                    begun.add(place[:2])
                    tape.watch(keras.tree.flatten(states))
                return cell_step(cell, inputs, states, training)

            with unrolled(layers, watched_step) as seen:
                loss = compute_loss()
        states = {path: [steps.states for steps in calls] for path, calls in seen.items()}
        return loss, seen, tape.gradient(loss, states, unconnected_gradients="zero")


def jvp(function: Callable) -> Callable:
    """Return the Jacobian-vector product, by the states, of a function of inputs and states.

    States, vectors and results are lists of tensors.
    """

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        with tf.autodiff.ForwardAccumulator(states, vectors) as accumulator:
            after = function(inputs, states)
        return accumulator.jvp(after, tf.UnconnectedGradients.ZERO)

    return product


def vjp(function: Callable) -> Callable:
    """Return the vector-Jacobian product, by the states, of a function of inputs and states.

    States, vectors and results are lists of tensors.
    """

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(states)
            after = function(inputs, states)
        return tape.gradient(after, states, vectors, tf.UnconnectedGradients.ZERO)

    return product
