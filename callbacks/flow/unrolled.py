"""Unrolling of recurrent layers, with access to each state."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

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

    states: dict[int, list[tf.Tensor]] = field(default_factory=dict)
    given: dict[int, tuple[tf.Tensor, Any]] = field(default_factory=dict)
    mask: tf.Tensor | None = None


def recurrent_layers(model: keras.Model) -> dict[str, keras.layers.RNN]:
    """Return the recurrent layers of a model by path."""
    return {
        path: layer for path, layer in layer_paths(model) if isinstance(layer, keras.layers.RNN)
    }


@contextmanager
def unrolled(
    layers: dict[str, keras.layers.RNN], tape: tf.GradientTape
) -> Iterator[dict[str, list[Steps]]]:
    """Unroll the layers' loops in Python inside the block, recorded by the tape.

    Yields:
        For each layer, one `Steps` per call, filled while the layer runs.
    """
    seen: dict[str, list[Steps]] = {path: [] for path in layers}
    with ExitStack() as stack:
        for path, layer in layers.items():
            loop = _loop(layer, tape, seen[path])
            # Assignment through `vars` bypasses Keras's attribute tracking.
            stack.enter_context(mock.patch.dict(vars(layer), inner_loop=loop))
        yield seen


def _loop(layer: keras.layers.RNN, tape: tf.GradientTape, calls: list[Steps]) -> Callable:
    """Return an unrolled replacement of `keras.layers.RNN.inner_loop`."""

    def inner_loop(
        sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        steps = Steps(mask=None if mask is None else tf.cast(mask, tf.bool))
        calls.append(steps)
        initial_state = keras.tree.map_structure(tf.convert_to_tensor, initial_state)
        tape.watch([sequences, *keras.tree.flatten(initial_state)])
        inputs = tf.unstack(sequences, axis=1)
        order = reversed(range(len(inputs))) if layer.go_backwards else range(len(inputs))
        states, previous, outputs = initial_state, None, []
        for time in order:
            there = None if steps.mask is None else steps.mask[:, time]
            steps.given[time] = inputs[time], states
            output, after = cell_step(layer.cell, inputs[time], states, training=training)
            steps.states[time] = keras.tree.flatten(after)
            output = _output(layer, there, output, previous)
            states = keras.tree.map_structure(lambda a, b, m=there: _where(m, a, b), after, states)
            previous = output
            outputs.append(output)
        return previous, tf.stack(outputs, axis=1), states

    return inner_loop


def cell_step(
    cell: Any, inputs: Any, states: Any, *, training: bool = False
) -> tuple[Any, list[Any]]:
    """Run one step of a cell; return its output and next states, nested like `states`."""
    takes_training = getattr(cell, "_call_has_training_arg", False)
    output, after = cell(inputs, states, **({"training": training} if takes_training else {}))
    return output, list(after) if isinstance(after, (list, tuple)) else [after]


def _output(layer: keras.layers.RNN, there: Any, output: Any, previous: Any) -> Any:
    """Return the output of a step; at a masked step, the previous output or zeros."""
    if there is None:
        return output
    missing = previous is None or layer.zero_output_for_mask
    return _where(there, output, tf.zeros_like(output) if missing else previous)


def _where(there: tf.Tensor | None, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Select `one` where `there` is True, else `other`."""
    if there is None:
        return one
    return tf.where(tf.reshape(there, [-1] + [1] * (one.shape.rank - 1)), one, other)
