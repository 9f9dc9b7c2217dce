"""Facts about a run, collected from its model and optimizers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from gradkeeper.callbacks._keras_private import output_layers as layers_of_outputs
from gradkeeper.callbacks.instrument.optimizers import (
    clipping_of,
    nested_optimizers,
    with_nested,
)
from gradkeeper.callbacks.instrument.variable_names import layer_paths, variable_names
from gradkeeper.callbacks.recording.rows import CallLog
from gradkeeper.callbacks.run_facts import RecurrentLayer, RunFacts
from gradkeeper.callbacks.window import layer_of

# Looked up by name, because some supported versions of Keras lack some of them.
_ADAPTIVE = tuple(
    getattr(keras.optimizers, name)
    for name in (
        *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb"),
        *("Lion", "Muon", "Nadam", "RMSprop", "ScheduleFreeAdamW"),
    )
    if hasattr(keras.optimizers, name)
)


def facts_of(
    model: keras.Model | None,
    optimizer_logs: Sequence[CallLog],
    *,
    has_loss: bool = False,
    masks_lost: Mapping[str, str] | None = None,
    output_layers: Sequence[str] = (),
) -> RunFacts:
    """Return the facts about a run.

    Args:
        model: the model; None if there is none.
        optimizer_logs: the log of each optimizer call, in the order of the first calls.
        has_loss: whether the loss of every step is recorded.
        masks_lost: layers that do not pass a mask on; see `RunFacts`.
        output_layers: layers that have returned an argument of the loss, if this is known.
    """
    optimizers = [
        each
        for optimizer_log in optimizer_logs
        for each in with_nested(optimizer_log.optimizer)
        if not nested_optimizers(each)
    ]
    layers = [] if model is None else layer_paths(model)
    outputs = set() if model is None else set(map(id, layers_of_outputs(model)))
    known = tuple(path for path, layer in layers if id(layer) in outputs)
    return RunFacts(
        optimizers=tuple(dict.fromkeys(type(each).__name__ for each in optimizers)),
        is_adaptive=_is_adaptive(optimizers),
        layer_types={path: type(layer).__name__ for path, layer in layers},
        recurrent=tuple(
            _recurrent(path, layer) for path, layer in layers if isinstance(layer, keras.layers.RNN)
        ),
        activations={
            path: _name(activation)
            for path, layer in layers
            if (activation := getattr(layer, "activation", None)) is not None
        },
        output_layers=known or tuple(output_layers),
        first_layer=_first_layer(model),
        clipping=next(filter(None, map(clipping_of, optimizers)), ""),
        shapes={
            name: tuple(variable.shape)
            for optimizer_log in optimizer_logs
            for name, variable in zip(optimizer_log.names, optimizer_log.variables, strict=True)
        },
        has_loss=has_loss,
        masks_lost=masks_lost or {},
    )


def _is_adaptive(optimizers: Sequence[keras.optimizers.Optimizer]) -> bool | None:
    for kinds, is_adaptive in ((_ADAPTIVE, True), (keras.optimizers.SGD, False)):
        if optimizers and all(isinstance(each, kinds) for each in optimizers):
            return is_adaptive
    return None


def _recurrent(path: str, layer: keras.layers.RNN) -> RecurrentLayer:
    cells = list(getattr(layer.cell, "cells", [layer.cell]))
    widths = [width for cell in cells for width in _gate_widths(cell)]
    activations = {
        argument: _name(activation)
        for cell in cells
        for argument in ("activation", "recurrent_activation")
        if (activation := getattr(cell, argument, None)) is not None
    }
    has_gates = any(map(_has_gates, cells))
    if all(map(_is_linear, cells)):
        return RecurrentLayer(path, has_gates or None)
    is_gated = has_gates or any(widths) if has_gates or widths else None
    return RecurrentLayer(path, is_gated, activations, any(map(_can_begin_orthogonal, cells)))


def _has_gates(cell: Any) -> bool:
    """Return True if a cell has an activation for gates, or states that it has several."""
    return hasattr(cell, "recurrent_activation") or getattr(cell, "gates", 1) > 1


def _is_linear(cell: Any) -> bool:
    """Return True for a cell of the zoo with a linear recurrence."""
    return hasattr(cell, "coefficients")


def _can_begin_orthogonal(cell: Any) -> bool:
    """Return True if another initializer draws the recurrent kernel, which the cell multiplies by.

    Some cells of the zoo compute their kernel from other weights (`compute_kernel`).
    """
    initializer = getattr(cell, "recurrent_initializer", None)
    is_orthogonal = isinstance(initializer, keras.initializers.Orthogonal)
    return initializer is not None and not is_orthogonal and not hasattr(cell, "compute_kernel")


def _first_layer(model: keras.Model | None) -> str:
    """Return the path of the first layer with weights; "" without one."""
    weights = [] if model is None else model.weights
    return layer_of(variable_names(model, weights)[0]) if weights else ""


def _name(activation: Any) -> str:
    return str(getattr(activation, "__name__", type(activation).__name__))


def _gate_widths(cell: Any) -> Iterator[bool]:
    """Yield, for each recurrent matrix, True if it has more columns than the state has units."""
    for variable in getattr(cell, "weights", ()):
        if "recurrent" in variable.name and len(variable.shape) > 1:
            yield variable.shape[-1] > variable.shape[-2]
