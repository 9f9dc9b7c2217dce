"""Remedies for an overflow, chosen from the results of the replay."""

import dataclasses

import keras
import numpy as np

from gradkeeper.callbacks.diagnosis.faults import OVERFLOW
from gradkeeper.callbacks.diagnosis.verdict import Verdict
from gradkeeper.callbacks.tap.names import layer_paths

_BOUNDED = (
    "Use bounded activations in the recurrent layer: activation='tanh' and, in a gated layer, "
    "recurrent_activation='sigmoid'."
)
_SHRINKING = (
    "The gradient grows from time step to time step: use recurrent_initializer='orthogonal', a "
    "gated layer (LSTM, GRU), or shorter sequences."
)
_SMALLER_INPUTS = "Normalise the inputs: with inputs divided by 1,024, the step is finite."
_SMALLER_WEIGHTS = "Use smaller initial weights, or insert a normalisation layer before this layer."
_SMALLER_LOSS = (
    "Reduce the loss: standardise the targets, replace a sum by a mean, and lower "
    "loss_weights and sample weights."
)
_FROM_THE_START = (
    "If the weights grew during training, restart with a lower learning rate or with clipped "
    "gradients (ClipAdvisor recommends a limit). Neither changes the result of this step."
)


def with_advice(verdict: Verdict, model: keras.Model, *, is_trained: bool) -> Verdict:
    """Replace the remedy of an overflow by advice for this step.

    Args:
        verdict: the result of the replay.
        model: the replayed model.
        is_trained: whether the weights may differ from the initial ones. With the initial
            weights, neither a lower learning rate nor clipping changes the step.

    Returns:
        The verdict with the remedy. A verdict whose fault is not an overflow is unchanged.
    """
    if verdict.fault is not OVERFLOW:
        return verdict
    parts = _parts(verdict, _recurrent_cell(model, verdict.layer))
    if is_trained:
        parts.append(_FROM_THE_START)
    elif not parts:
        parts.append(_SMALLER_WEIGHTS)
    fault = dataclasses.replace(OVERFLOW, remedy=" ".join(parts))
    return dataclasses.replace(verdict, fault=fault)


def _parts(verdict: Verdict, cell: keras.layers.Layer | None) -> list[str]:
    parts = []
    if verdict.place == "forward" and cell is not None and _is_unbounded(cell):
        parts.append(_BOUNDED)
    if verdict.place == "backward" and cell is not None:
        parts.append(_SHRINKING)
    if verdict.step_if_smaller:
        parts.append(_SMALLER_INPUTS)
    if verdict.place != "forward" and cell is None:
        parts.append(_SMALLER_LOSS)
    return parts


def _recurrent_cell(model: keras.Model, layer: str | None) -> keras.layers.Layer | None:
    """Return the cell of the recurrent layer at the path `layer` or around it; None if none."""
    for path, each in layer_paths(model):
        is_around = layer is not None and f"{layer}/".startswith(f"{path}/")
        if is_around and isinstance(each, keras.layers.RNN):
            return each.cell
    return None


def _is_unbounded(cell: keras.layers.Layer) -> bool:
    """Return True if an activation of `cell` is unbounded."""
    names = ("activation", "recurrent_activation")
    functions = [each for name in names if (each := getattr(cell, name, None)) is not None]
    large = np.full((1, 1), 1e3, "float32")
    results = [keras.ops.convert_to_numpy(function(large)) for function in functions]
    # The bounded activations of Keras return at most 1 (hard_tanh, sigmoid) or 6 (relu6).
    return any(bool((each > 10).any()) for each in results)
