"""Unrolling of recurrent layers, with access to each state."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias
from unittest import mock

import keras
from keras import ops

from gradkeeper.callbacks.instrument.variable_names import layer_paths


@dataclass
class Steps:
    """Inputs and states of one call of a recurrent layer.

    Both dictionaries are keyed by the time index of the input and filled in order of processing.

    Attributes:
        states: flat list of the cell's states after each time step.
        given: the cell's inputs and its nested states before each time step.
        mask: True at the steps that belong to the sequence, [batch, time]; None if unmasked.
    """

    states: dict[int, list[Any]] = field(default_factory=dict)
    given: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    mask: Any = None


# Recurrent layers by path, and the calls of each.
Layers: TypeAlias = dict[str, keras.layers.RNN]
Calls: TypeAlias = dict[str, list[Steps]]
# A time step: path of the layer, number of earlier calls of the layer, and time index.
Place: TypeAlias = tuple[str, int, int]


def recurrent_layers(model: keras.Model) -> Layers:
    """Return the recurrent layers of a model by path."""
    return {
        path: layer for path, layer in layer_paths(model) if isinstance(layer, keras.layers.RNN)
    }


def layers_to_unroll(model: keras.Model) -> Layers:
    """Return the recurrent layers of a model by path.

    Raises:
        ValueError: if the model has no recurrent layer.
    """
    layers = recurrent_layers(model)
    if not layers:
        raise ValueError(
            "The model has no recurrent layer. Pass a model with a `keras.layers.RNN`. "
            f"Received: model={model.name!r}"
        )
    return layers


def in_tensors(structure: Any) -> Any:
    """Convert the arrays of a nested structure to tensors."""
    return keras.tree.map_structure(
        lambda each: None if each is None else ops.convert_to_tensor(each), structure
    )


def cell_step(cell: Any, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
    """Run one step of a cell; return its output and next states, nested like `states`."""
    takes_training = getattr(cell, "_call_has_training_arg", False)
    output, after = cell(inputs, states, **({"training": training} if takes_training else {}))
    return output, list(after) if isinstance(after, (list, tuple)) else [after]


def _plain_step(place: Place, *arguments: Any) -> tuple[Any, list[Any]]:
    return cell_step(*arguments)


@contextmanager
def unrolled(layers: Layers, step: Callable = _plain_step) -> Iterator[Calls]:
    """Unroll the layers' loops in Python inside the block.

    Args:
        layers: the recurrent layers by path.
        step: runs a step of a cell; has the arguments of `cell_step` after a `Place`.

    Yields:
        One `Steps` per call of each layer, filled while the layer runs.
    """
    seen: Calls = {path: [] for path in layers}
    with ExitStack() as stack:
        for path, layer in layers.items():
            loop = _loop(path, layer, step, seen[path])
            # Assignment through `vars` bypasses Keras's attribute tracking.
            stack.enter_context(mock.patch.dict(vars(layer), inner_loop=loop))
        yield seen


def _loop(path: str, layer: keras.layers.RNN, step: Callable, calls: list[Steps]) -> Callable:
    """Return an unrolled replacement of `keras.layers.RNN.inner_loop`."""

    def inner_loop(
        sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        steps = Steps(mask=None if mask is None else ops.cast(mask, "bool"))
        calls.append(steps)
        states = keras.tree.map_structure(ops.copy, initial_state)  # may be variables
        inputs = ops.unstack(sequences, axis=1)
        order = range(len(inputs))
        output, outputs = None, []
        for time in reversed(order) if layer.go_backwards else order:
            steps.given[time] = inputs[time], states
            place = path, len(calls) - 1, time
            new, after = step(place, layer.cell, inputs[time], states, training)
            steps.states[time] = keras.tree.flatten(after)
            if steps.mask is not None:
                chosen = partial(_where, steps.mask[:, time])
                is_missing = output is None or layer.zero_output_for_mask
                new = chosen(new, ops.zeros_like(new) if is_missing else output)
                after = keras.tree.map_structure(chosen, after, states)
            output, states = new, after
            outputs.append(output)
        return output, ops.stack(outputs, axis=1), states

    return inner_loop


def _where(there: Any, one: Any, other: Any) -> Any:
    """Select the examples of `one` where `there` is True, else those of `other`."""
    return ops.where(ops.reshape(there, [-1] + [1] * (len(one.shape) - 1)), one, other)
