"""Gradients of the loss with respect to the states of recurrent layers at every time step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.eagerly import forward_pass_undone, functions_run_eagerly
from gradkeeper.callbacks.flow.state_flow import StateFlow
from gradkeeper.callbacks.flow.unrolled import Steps, recurrent_layers, unrolled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = ("h", "c")


@dataclass(frozen=True)
class GradientFlow:
    """Gradients through time of all recurrent layers of a model.

    Attributes:
        states: one `StateFlow` for each state of each layer.
        loss: the differentiated loss.
    """

    states: tuple[StateFlow, ...]
    loss: float

    def __getitem__(self, name: str) -> StateFlow:
        """Return the flow of a layer's h ("lstm"), or of another state ("lstm c")."""
        for each in self.states:
            if name in (each.name, each.layer):
                return each
        raise KeyError(
            f"Unknown state. Known: {', '.join(each.name for each in self)}. Received: name={name!r}"
        )

    def __iter__(self) -> Iterator[StateFlow]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    def plot(self) -> "Figure":
        """Plot the median and the 5th to 95th percentile of the norms over time."""
        from gradkeeper.callbacks.flow.plots import plot_flow

        return plot_flow(self)

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def gradient_flow(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    loss: Callable[[Any], Any] | None = None,
    training: bool = False,
) -> GradientFlow:
    """Compute ∂L/∂s_t for every state s of every recurrent layer and every time step t.

    The model runs once, with its recurrent loops unrolled. Weights, states of stateful layers,
    seeds and metrics are restored afterwards. Every `keras.layers.RNN` is included: any cell, in
    `Bidirectional` and in nested models, with masks. The time index is that of the layer's
    input, also with `go_backwards=True`.

    Args:
        model: a built model.
        x: a batch of inputs.
        y: targets for the loss that the model was compiled with.
        loss: maps the model's outputs to a scalar; replaces the compiled loss.
        training: whether to run layers such as dropout in training mode.

    Returns:
        The gradient norms of each state, each of shape [time, batch].

    Raises:
        ValueError: if the model has no recurrent layer, or neither is the model compiled nor
            `loss` given.
    """
    layers = recurrent_layers(model)
    if not layers:
        raise ValueError(
            "The model has no recurrent layer. Pass a model with a `keras.layers.RNN`. "
            f"Received: model={model.name!r}"
        )
    if loss is None and not model.compiled:
        raise ValueError(
            f"Compile the model or pass `loss`. Received: model={model.name!r}, loss=None"
        )
    x, y = in_tensors(x), in_tensors(y)
    with functions_run_eagerly(), forward_pass_undone(model):
        with tf.GradientTape() as tape, unrolled(layers, tape) as seen:
            outputs = model(x, training=training)
            value = loss(outputs) if loss else model.compute_loss(x, y, outputs, training=training)
        calls = [(path, steps) for path, made in seen.items() for steps in made if steps.states]
        states = [each for _, steps in calls for row in steps.states.values() for each in row]
        gradients = iter(tape.gradient(value, states))
    flows: list[StateFlow] = []
    numbers: dict[str, int] = {}
    for path, steps in calls:
        numbers[path] = numbers.get(path, 0) + 1
        name = path if numbers[path] == 1 else f"{path}, call {numbers[path]}"
        flows += _flows(name, steps, gradients)
    return GradientFlow(tuple(flows), float(value))


def _flows(layer: str, steps: Steps, gradients: Iterator[Any]) -> list[StateFlow]:
    """Return the flows of a layer's states; `gradients` are in the order of the steps."""
    rows = {
        time: [_norms(state, next(gradients)) for state in states]
        for time, states in steps.states.items()
    }
    mask = None if steps.mask is None else steps.mask.numpy().T
    read = list(steps.states)
    reads_backwards = read[0] > read[-1]
    flows = []
    for number in range(len(next(iter(rows.values())))):
        norms = np.stack([rows[time][number] for time in sorted(rows)])
        name = _NAMES[number] if number < len(_NAMES) else f"state {number}"
        norms = norms if mask is None else _masked(norms, mask)
        flows.append(StateFlow(layer, name, norms, backwards=reads_backwards))
    return flows


def _masked(norms: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, norms, np.nan)


def _norms(state: tf.Tensor, gradient: Any) -> np.ndarray:
    """Return the norm per example, [batch]; 0 if the loss does not depend on the state."""
    if gradient is None:
        return np.zeros(state.shape[0])
    flat = np.asarray(gradient.numpy(), np.float64).reshape(state.shape[0], -1)
    return np.linalg.norm(flat, axis=1)


def in_tensors(structure: Any) -> Any:
    """Convert the arrays of a nested structure to tensors."""
    return keras.tree.map_structure(
        lambda each: None if each is None else tf.convert_to_tensor(each), structure
    )
