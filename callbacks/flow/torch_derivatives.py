"""Derivatives of unrolled models and of cells on the torch backend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import torch

from gradkeeper.callbacks.flow.unrolled import Calls, Layers, Place, cell_step, unrolled
from gradkeeper.callbacks.instrument.generators import generators_restored


@contextmanager
def unrolled_pass(model: keras.Model, layers: Layers) -> Iterator[Calls]:
    """Unroll the layers' loops inside the block, in which the model's variables do not change."""
    with torch.no_grad(), _stateless(), unrolled(layers) as seen:
        yield seen


def state_gradients(
    model: keras.Model, layers: Layers, compute_loss: Callable[[], torch.Tensor]
) -> tuple[torch.Tensor, Calls, dict[str, list[dict[int, list[torch.Tensor]]]]]:
    """Compute the gradient of a loss with respect to every state; see `derivatives`."""

    def watched_step(
        place: Place, cell: Any, inputs: torch.Tensor, states: Any, training: bool
    ) -> tuple[Any, list[Any]]:
        if not inputs.requires_grad:  # the weights may be frozen
            inputs = inputs.detach().requires_grad_()
        return cell_step(cell, inputs, states, training)

    with torch.enable_grad(), _stateless(), unrolled(layers, watched_step) as seen:
        loss = compute_loss()
        states = {path: [steps.states for steps in calls] for path, calls in seen.items()}
        flat = keras.tree.flatten(states)
        found = torch.autograd.grad(
            loss, flat, allow_unused=True, materialize_grads=True, retain_graph=False
        )
    return loss.detach(), seen, keras.tree.pack_sequence_as(states, list(found))


def jvp(function: Callable) -> Callable:
    """Return the Jacobian-vector product of a function; see `derivatives`."""

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        with _stateless():
            _, moved = torch.func.jvp(
                lambda *given: tuple(function(inputs, list(given))), tuple(states), tuple(vectors)
            )
        return list(moved)

    return product


def vjp(function: Callable) -> Callable:
    """Return the vector-Jacobian product of a function; see `derivatives`."""

    def product(inputs: Any, states: list[Any], vectors: list[Any]) -> list[Any]:
        watched = [each.detach().requires_grad_() for each in states]
        with torch.enable_grad(), _stateless():
            after = function(inputs, watched)
            return list(
                torch.autograd.grad(
                    after, watched, vectors, allow_unused=True, materialize_grads=True
                )
            )

    return product


@contextmanager
def _stateless() -> Iterator[None]:
    """Change no variable and no random generator inside the block; collect losses of layers."""
    with generators_restored(), keras.StatelessScope(collect_losses=True):
        yield
