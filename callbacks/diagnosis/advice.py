"""The remedy for an overflow, by the facts of the step."""

import dataclasses

import keras
import numpy as np

from gradkeeper.callbacks.diagnosis.faults import OVERFLOW
from gradkeeper.callbacks.diagnosis.verdict import Verdict
from gradkeeper.callbacks.tap.names import layer_paths

_BOUNDED = (
    "Give the recurrent layer bounded activations, activation='tanh' and, in a gated layer, "
    "recurrent_activation='sigmoid'."
)
_SHRINKING = (
    "The gradient grows from time step to time step: choose recurrent_initializer='orthogonal', a "
    "gated layer (LSTM, GRU), or shorter sequences."
)
_SMALLER_INPUTS = "Normalise the inputs: with inputs 1,024 times as small, the step is finite."
_SMALLER_WEIGHTS = "Choose smaller initial weights, or put a normalisation layer in front."
_SMALLER_LOSS = (
    "Make the loss smaller: standardise the targets, take a mean in place of a sum, and lower "
    "loss_weights and sample weights."
)
_FROM_THE_START = (
    "If the weights have grown during training, start again with a lower learning rate or with "
    "clipped gradients (ClipAdvisor recommends a limit); this step itself cannot be mended so."
)


def with_advice(verdict: Verdict, model: keras.Model, *, is_trained: bool) -> Verdict:
    """Adds the remedy for this overflow to a verdict; leaves any other verdict unchanged.

    Args:
        verdict: the verdict.
        model: the model.
        is_trained: whether the weights may be others than the initial ones. Where they are the
            initial ones, neither a lower learning rate nor clipping changes the step.
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
    """The cell of the recurrent layer that a layer is, or is part of."""
    for path, each in layer_paths(model):
        is_around = layer is not None and f"{layer}/".startswith(f"{path}/")
        if is_around and isinstance(each, keras.layers.RNN):
            return each.cell
    return None


def _is_unbounded(cell: keras.layers.Layer) -> bool:
    """Whether an activation of a cell passes a large number on."""
    names = ("activation", "recurrent_activation")
    functions = [each for name in names if (each := getattr(cell, name, None)) is not None]
    large = np.full((1, 1), 1e3, "float32")
    results = [keras.ops.convert_to_numpy(function(large)) for function in functions]
    # Every bounded activation of Keras gives at most 1 (hard_tanh, sigmoid) or 6 (relu6).
    return any(bool((each > 10).any()) for each in results)
