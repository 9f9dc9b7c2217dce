"""Scalars of the recorded train steps, which the sinks log by name."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradkeeper.callbacks.window import Window


def scalars_by_step(
    window: Window, *, layers: bool = True
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number of each train step, and its known values by name.

    Names:
        global_norm: L2 norm over all variables before clipping.
        applied_global_norm: L2 norm after clipping; only in steps with an update.
        clip_coefficient: norm after clipping divided by norm before clipping.
        nonfinite: number of gradient elements that are NaN or infinite.
        loss, learning_rate, loss_scale: see `Window.scalars`.
        <measurement>/<variable>: user-defined measurements.
        activations/<statistic>/<layer call>: statistics of the layer outputs.
        layers/<layer>: L2 norm before clipping over all variables of the layer.

    Args:
        window: the train steps.
        layers: True to include the norm of each layer.
    """
    scalars = _scalars(window) | (_layer_scalars(window) if layers else {})
    columns = {name: (value.tolist(), known.tolist()) for name, (value, known) in scalars.items()}
    for row, step in enumerate(window.steps.tolist()):
        yield step, {name: value[row] for name, (value, known) in columns.items() if known[row]}


def finite_json(value: Any) -> Any:
    """Return a JSON value with the strings "NaN", "Infinity" and "-Infinity" for such numbers.

    JSON does not have these numbers. Source of the names: the JSON format of protocol buffers.
    """
    if isinstance(value, dict):
        return {name: finite_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return finite_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def _scalars(window: Window) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, by name, the values, [steps], and the steps with a value, bool [steps]."""
    there, coefficient = window.present.any(axis=1), window.clip_coefficient
    scalars = {
        "global_norm": (window.global_norm, there),
        "applied_global_norm": (window.applied_global_norm, window.updated.any(axis=1)),
        "clip_coefficient": (coefficient, ~np.isnan(coefficient)),
        "nonfinite": (window.nonfinite.sum(axis=1), there),
    }
    for name in ("loss", "learning_rate", "loss_scale"):
        value = window.scalar(name)
        scalars[name] = value, ~np.isnan(value)
    for name in window.measurements:
        for variable, value in zip(window.variables, window.value(name).T, strict=True):
            scalars[f"{name}/{variable}"] = value, ~np.isnan(value)
    for name, values in window.activations.values.items():
        for call, value in zip(window.activations.names, values.T, strict=True):
            scalars[f"activations/{name}/{call}"] = value, ~np.isnan(value)
    return scalars


def _layer_scalars(window: Window) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    layers = zip(window.layers, window.layer_norms.T, window.layer_columns, strict=True)
    return {
        f"layers/{layer}": (norms, np.any(window.present[:, columns], axis=1))
        for layer, norms, columns in layers
    }
