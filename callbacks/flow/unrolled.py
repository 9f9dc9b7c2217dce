"""Recurrent layers whose loop is run step by step, so that each state can be seen."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.names import layer_paths


@dataclass
class Steps:
    """The states of a recurrent layer after each time step.

    Attributes:
        states: by time step, in the sequence's own order, the cell's states one after the other.
        given: what the cell was called with at each time step, in the order in which they were
            read: its inputs, and the states before, nested as the cell has them.
        mask: which steps belong to each sequence, [batch, time]; None for all.
    """

    states: dict[int, list[tf.Tensor]] = field(default_factory=dict)
    given: dict[int, tuple[tf.Tensor, Any]] = field(default_factory=dict)
    mask: tf.Tensor | None = None


def recurrent_layers(model: keras.Model) -> dict[str, keras.layers.RNN]:
    """The recurrent layers in a model, by the path of layers that leads to each."""
    return {
        path: layer for path, layer in layer_paths(model) if isinstance(layer, keras.layers.RNN)
    }


@contextmanager
def unrolled(
    layers: dict[str, keras.layers.RNN], tape: tf.GradientTape
) -> Iterator[dict[str, list[Steps]]]:
    """Inside the block, the layers' loops run in Python, seen by the tape.

    Gives:
        For each layer the steps of each of its calls, filled while they are made.
    """
    seen: dict[str, list[Steps]] = {path: [] for path in layers}
    with ExitStack() as stack:
        for path, layer in layers.items():
            loop = _loop(layer, tape, seen[path])
            # Past Keras's tracking of attributes.
            stack.enter_context(mock.patch.dict(vars(layer), inner_loop=loop))
        yield seen


def _loop(layer: keras.layers.RNN, tape: tf.GradientTape, calls: list[Steps]) -> Callable:
    """What `keras.layers.RNN.inner_loop` does, step by step."""

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
    """One step of a cell: its output, and the states after it, nested as the states before."""
    takes_training = getattr(cell, "_call_has_training_arg", False)
    output, after = cell(inputs, states, **({"training": training} if takes_training else {}))
    return output, list(after) if isinstance(after, (list, tuple)) else [after]


def _output(layer: keras.layers.RNN, there: Any, output: Any, previous: Any) -> Any:
    """The output of a step; of a masked one the one before, or zeros."""
    if there is None:
        return output
    missing = previous is None or layer.zero_output_for_mask
    return _where(there, output, tf.zeros_like(output) if missing else previous)


def _where(there: tf.Tensor | None, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """`one` where the step belongs to the sequence."""
    if there is None:
        return one
    return tf.where(tf.reshape(there, [-1] + [1] * (one.shape.rank - 1)), one, other)
