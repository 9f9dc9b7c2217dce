"""Unrolling of recurrent layers, with access to each state, and Jacobians of their steps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from unittest import mock

import keras
import numpy as np
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


def layers_to_unroll(model: keras.Model) -> dict[str, keras.layers.RNN]:
    """Return the recurrent layers of a model by path; raise ValueError if it has none."""
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
        lambda each: None if each is None else tf.convert_to_tensor(each), structure
    )


@contextmanager
def unrolled(
    layers: dict[str, keras.layers.RNN], tape: tf.GradientTape | None = None
) -> Iterator[dict[str, list[Steps]]]:
    """Unroll the layers' loops in Python inside the block, recorded by the tape if there is one.

    Yields one `Steps` per call of each layer, filled while the layer runs.
    """
    seen: dict[str, list[Steps]] = {path: [] for path in layers}
    with ExitStack() as stack:
        for path, layer in layers.items():
            loop = _loop(layer, tape, seen[path])
            # Assignment through `vars` bypasses Keras's attribute tracking.
            stack.enter_context(mock.patch.dict(vars(layer), inner_loop=loop))
        yield seen


def _loop(layer: keras.layers.RNN, tape: tf.GradientTape | None, calls: list[Steps]) -> Callable:
    """Return an unrolled replacement of `keras.layers.RNN.inner_loop`."""

    def inner_loop(
        sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        steps = Steps(mask=None if mask is None else tf.cast(mask, tf.bool))
        calls.append(steps)
        states = keras.tree.map_structure(tf.convert_to_tensor, initial_state)
        if tape is not None:
            tape.watch([sequences, *keras.tree.flatten(states)])
        inputs = tf.unstack(sequences, axis=1)
        order = range(len(inputs))
        output, outputs = None, []
        for time in reversed(order) if layer.go_backwards else order:
            steps.given[time] = inputs[time], states
            new, after = cell_step(layer.cell, inputs[time], states, training=training)
            steps.states[time] = keras.tree.flatten(after)
            if steps.mask is not None:
                chosen = partial(_where, steps.mask[:, time])
                is_missing = output is None or layer.zero_output_for_mask
                new = chosen(new, tf.zeros_like(new) if is_missing else output)
                after = keras.tree.map_structure(chosen, after, states)
            output, states = new, after
            outputs.append(output)
        return output, tf.stack(outputs, axis=1), states

    return inner_loop


def cell_step(
    cell: Any, inputs: Any, states: Any, *, training: bool = False
) -> tuple[Any, list[Any]]:
    """Run one step of a cell; return its output and next states, nested like `states`."""
    takes_training = getattr(cell, "_call_has_training_arg", False)
    output, after = cell(inputs, states, **({"training": training} if takes_training else {}))
    return output, list(after) if isinstance(after, (list, tuple)) else [after]


def _where(there: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Select the examples of `one` where `there` is True, else those of `other`."""
    return tf.where(tf.reshape(there, [-1] + [1] * (one.shape.rank - 1)), one, other)


# Means are taken over at most this many pairs of example and time step.
_MOST_ROWS = 4096


class StepJacobian:
    """Jacobian ∂s_{t+1}/∂s_t of a cell at recorded steps; s joins its states, [batch, size]."""

    def __init__(self, cell: Any, steps: Steps) -> None:
        self._cell, self._steps = cell, steps
        inputs, self._nest = next(iter(steps.given.values()))
        self._batch = int(inputs.shape[0])
        self._sizes = [int(each.shape[-1]) for each in keras.tree.flatten(self._nest)]
        self.size = sum(self._sizes)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return the mean Jacobian over all unmasked examples and steps times a vector, [size]."""
        inputs, states = self._rows
        moved = self._forward(inputs, states, _like(vector, states))
        return np.asarray(tf.reduce_mean(moved, axis=0), np.float64)

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """Return the transposed mean Jacobian times a vector, [size]."""
        inputs, states = self._rows
        with tf.GradientTape() as tape:
            tape.watch(states)
            after = self._after(inputs, states)
        back = tape.gradient(after, states, output_gradients=_like(vector, states))
        return np.asarray(tf.reduce_mean(back, axis=0), np.float64)

    def lyapunov_exponents(self, count: int) -> np.ndarray:
        """Return the largest Lyapunov exponents, [count], per step, averaged over the examples.

        The QR method propagates vectors along each sequence, orthogonalises them at every step
        and sums the logarithms of their growth (Benettin et al. 1980; for recurrent networks,
        Vogt et al. 2022). Masked steps are skipped.
        """
        count, batch = min(count, self.size), self._batch
        frames = np.linalg.qr(np.random.default_rng(0).normal(size=(batch, self.size, count)))[0]
        sums, steps = np.zeros((batch, count)), np.zeros((batch, 1))
        for time, (inputs, nested) in self._steps.given.items():
            states = _flat(nested)
            columns = [
                self._forward(inputs, states, tf.cast(frames[..., column], states.dtype))
                for column in range(count)
            ]
            moved, growth = np.linalg.qr(np.stack(columns, axis=-1).astype(np.float64))
            there = self._there(time)
            with np.errstate(divide="ignore"):
                logs = np.log(np.abs(np.diagonal(growth, axis1=1, axis2=2)))
            sums += np.where(there, logs, 0.0)
            steps += there
            frames = np.where(there[..., np.newaxis], moved, frames)
        return (sums / np.maximum(steps, 1)).mean(axis=0)

    @cached_property
    def _rows(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inputs and states of all unmasked steps, [rows, ...], evenly subsampled."""
        given = self._steps.given
        inputs = tf.concat([each for each, _ in given.values()], axis=0)
        states = tf.concat([_flat(nested) for _, nested in given.values()], axis=0)
        rows = np.flatnonzero(np.concatenate([self._there(time) for time in given]))
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(int)]
        return tf.gather(inputs, chosen), tf.gather(states, chosen)

    def _there(self, time: int) -> np.ndarray:
        """Return the mask of the examples at this time step, [batch, 1]."""
        mask = self._steps.mask
        return np.ones((self._batch, 1), bool) if mask is None else mask[:, time, None].numpy()

    def _forward(self, inputs: tf.Tensor, states: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return the Jacobian-vector product of each row, [rows, size]."""
        with tf.autodiff.ForwardAccumulator(states, vectors) as accumulator:
            after = self._after(inputs, states)
        return accumulator.jvp(after, tf.UnconnectedGradients.ZERO)

    def _after(self, inputs: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        parts = tf.split(states, self._sizes, axis=-1)
        nested = keras.tree.pack_sequence_as(self._nest, parts)
        return _flat(cell_step(self._cell, inputs, nested)[1])


def _flat(nested: Any) -> tf.Tensor:
    return tf.concat(keras.tree.flatten(nested), axis=-1)


def _like(vector: np.ndarray, states: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(tf.cast(vector, states.dtype), states.shape)
