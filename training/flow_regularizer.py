"""A regularizer against gradients that vanish or explode through time."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper._arguments import number
from gradkeeper.callbacks.flow.unrolled import cell_step, recurrent_layers
from gradkeeper.callbacks.instrument.variable_names import layer_paths
from gradkeeper.zoo.layers import CellLayer

_L = keras.layers
_STEPPING = [each.inner_loop for each in (_L.RNN, _L.LSTM, _L.GRU, CellLayer)]

# The direction of a gradient with a smaller norm is not meaningful.
_LEAST = 1e-20


def regularize_flow(model: keras.Model, weight: float) -> None:
    """Add a regularizer that preserves the gradient's norm through time in all recurrent layers.

    Pascanu, Mikolov, Bengio: "On the difficulty of training recurrent neural networks", 2013,
    arXiv 1211.5063, eq. 9 and 10: with s_k the cell's states at step k, as one vector, and E the
    loss, the gradient of each cell weight W becomes::

        dE/dW + weight * mean over the batch of  sum_k d+Omega_k/dW
        Omega_k = (|dE/ds_{k+1} ds_{k+1}/ds_k| / |dE/ds_{k+1}| - 1)^2

    d+ is the immediate derivative: dE/ds_{k+1}, s_k and the inputs x_k are constants. A step is
    excluded where it is masked, where |dE/ds_{k+1}| is below 1e-20, and where s_k is all zeros:
    no weight learns from the gradient that reaches a layer's initial state, and the derivative of
    a layer normalization is huge there. An output that is not one of the states is an additional
    part of s_{k+1}.

    The regularizer is active when layers are called with `training=True` under a gradient tape, in
    `fit` and in custom training loops (recreate a `tf.function` that was traced before). It does
    not change the loss, the outputs, or saved files and models loaded from them. Layers run their
    cell step by step, without cuDNN.

    Args:
        model: the model, built or not, compiled or not; nested models and wrapped layers are
            included.
        weight: weight of the regularizer. It replaces an earlier weight; 0 removes the
            regularizer.

    Raises:
        ValueError: if the weight is negative or not finite, if the model has no recurrent layer or
            one that does not compute its states step by step, or if gradients are scaled with the
            loss (mixed_float16).
        RuntimeError: if the Keras backend is not TensorFlow.
    """
    number("weight", weight, "[0, inf)")
    layers = recurrent_layers(model)
    if not layers:
        raise ValueError(f"The model has no recurrent layer. Received: model={model.name!r}")
    if weight:
        _check(model, layers)
    for layer in layers.values():
        # Bypass Keras's attribute tracking.
        vars(layer).pop("inner_loop", None)
        if weight:
            vars(layer)["inner_loop"] = _Loop(layer, float(weight))
    model.train_function = None  # discard the traced function


def _check(model: keras.Model, layers: dict[str, keras.layers.RNN]) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "The flow regularizer needs the TensorFlow backend of Keras. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    otherwise = [path for path, each in layers.items() if type(each).inner_loop not in _STEPPING]
    if otherwise:
        raise ValueError(
            "The flow regularizer needs layers that run step by step, without a parallel scan or a "
            f"custom loop. Remove the regularizer. Received: {', '.join(otherwise)}"
        )
    halves = [path for path, each in layers.items() if each.compute_dtype == "float16"]
    optimizer = getattr(model, "optimizer", None)
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if halves or is_scaled or getattr(optimizer, "loss_scale_factor", None):
        received = ", ".join(halves) or f"optimizer={optimizer!r}"
        raise ValueError(
            "The flow regularizer does not support loss scaling (mixed_float16). Use "
            f"mixed_bfloat16 or float32. Received: {received}"
        )


class _Loop:
    """Replacement for a layer's `inner_loop`."""

    def __init__(self, layer: keras.layers.RNN, weight: float) -> None:
        self._layer, self._weight = layer, weight

    def __call__(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        layer = self._layer
        if not training or not layer.cell.trainable_weights:
            return type(layer).inner_loop(layer, sequences, initial_state, mask, training)
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        # Read the weights outside the loop, which would otherwise store a copy for every step.
        weights = [_read(each) for each in layer.cell.trainable_weights]
        step = partial(self._step, layer.cell, weights)
        with mock.patch.dict(vars(layer), cell=step):
            return _L.RNN.inner_loop(layer, sequences, initial_state, mask, training)

    def _step(
        self, cell: keras.layers.Layer, weights: list[tf.Tensor], inputs: Any, states: Any
    ) -> tuple[Any, list[Any]]:
        """Run a step of the cell; its gradient includes the regularizer's."""
        step = _Step(cell, inputs, states)
        weight = self._weight / tf.distribute.get_strategy().num_replicas_in_sync

        @tf.custom_gradient
        def unchanged(parts: list[tf.Tensor], weights: list[tf.Tensor]) -> Any:
            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                return [*upstream, *_omega_gradients(step, weights, upstream, weight)]

            return parts, gradient

        return step.results_with(unchanged(step.parts, weights))


class _Step:
    """A step of a cell that can be recomputed.

    Attributes:
        states: states before the step, in the cell's structure.
        parts: the distinct tensors among the output and the states after the step. An output
            that is also a state is one part: its gradient is the total one.
    """

    def __init__(self, cell: keras.layers.Layer, inputs: Any, states: Any) -> None:
        self._cell, self._inputs, self.states = cell, inputs, states
        weights = {id(each) for each in cell.weights}
        self._seeds = [(each, _read(each)) for each in cell.variables if id(each) not in weights]
        self._results = cell_step(cell, inputs, states, training=True)
        self.parts = _different(self._results)
        # Dropout masks and other attributes that a cell caches for a sequence.
        self._attributes = [(each, dict(vars(each))) for _, each in layer_paths(cell)]

    def again(self, states: Any, weights: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Recompute the parts for other states and weights, with the same random numbers."""
        values = [*zip(self._cell.trainable_weights, weights, strict=True), *self._seeds]
        with ExitStack() as stack:
            stack.enter_context(keras.StatelessScope(values))
            for layer, attributes in self._attributes:
                stack.enter_context(mock.patch.dict(vars(layer), attributes))
            return _different(cell_step(self._cell, self._inputs, states, training=True))

    def results_with(self, parts: Sequence[tf.Tensor]) -> tuple[Any, list[Any]]:
        """Return the output and the states after the step, with the parts replaced."""
        other = {id(old): new for old, new in zip(self.parts, parts, strict=True)}
        return keras.tree.map_structure(lambda each: other.get(id(each), each), self._results)


def _omega_gradients(
    step: _Step, weights: list[tf.Tensor], upstream: Sequence[tf.Tensor], weight: float
) -> list[tf.Tensor]:
    """Return `weight` times the immediate derivative of the batch's mean Omega_k by the weights.

    Only the direction of dE/ds_{k+1} matters. Let v be the vector-Jacobian product of the step
    with this direction. Then Omega_k is (|v| - 1)^2, and 2 (|v| - 1) v / |v| is backpropagated
    through the computation of v.

    Args:
        upstream: dE/ds_{k+1}, structured like `step.parts`.
    """
    # Copy: a tape cannot watch tensors of the forward pass's graph.
    weights, states = keras.tree.map_structure(tf.identity, (weights, step.states))
    before = _floating(states)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(weights)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(before)
            after = step.again(states, weights)
        begun = tf.reduce_any(_joined(before) != 0, axis=1, keepdims=True)
        back = inner.gradient(after, before, _directions(upstream, begun), "zero")
    v = _joined(back)
    norm = tf.norm(v, axis=1, keepdims=True)
    slope = tf.math.divide_no_nan(2 * (norm - 1) * v, norm)
    mean = slope * (weight / tf.cast(tf.shape(v)[0], v.dtype))
    return outer.gradient(back, weights, _parted(mean, back), "zero")


def _directions(gradients: Sequence[tf.Tensor], counts: tf.Tensor) -> list[tf.Tensor]:
    """Normalize each example's gradient to norm 1; zeros if it is near zero or not finite.

    Args:
        counts: bool [batch, 1], True for the examples to include.
    """
    vector = _joined(gradients)
    # Divide by the largest element first, because the squares of small numbers underflow.
    largest = tf.reduce_max(tf.abs(vector), axis=1, keepdims=True)
    scaled = tf.math.divide_no_nan(vector, largest)
    norm = tf.norm(scaled, axis=1, keepdims=True)
    there = counts & (largest * norm >= _LEAST)
    unit = tf.where(there, tf.math.divide_no_nan(scaled, norm), tf.zeros_like(vector))
    return _parted(unit, gradients)


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenate tensors [batch, ...] to [batch, numbers], in float32 or wider."""
    wide = keras.backend.result_type(*[each.dtype.name for each in parts], "float32")
    flat = [tf.reshape(tf.cast(each, wide), [tf.shape(each)[0], -1]) for each in parts]
    return tf.concat(flat, axis=1)


def _parted(joined: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Split a tensor that `_joined` concatenated."""
    widths = [math.prod(each.shape[1:]) for each in like]
    parts = zip(tf.split(joined, widths, axis=1), like, strict=True)
    return [tf.cast(tf.reshape(part, tf.shape(each)), each.dtype) for part, each in parts]


def _different(structure: Any) -> list[tf.Tensor]:
    """Return the distinct floating-point tensors of a structure."""
    return list({id(each): each for each in _floating(structure)}.values())


def _floating(structure: Any) -> list[tf.Tensor]:
    return [each for each in keras.tree.flatten(structure) if each.dtype.is_floating]


def _read(variable: keras.Variable) -> tf.Tensor:
    """Return a variable's value in its own dtype, also under mixed precision."""
    return tf.convert_to_tensor(tf.cast(variable.value, variable.dtype))
