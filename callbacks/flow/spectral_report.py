"""Spectra of recurrent kernels and one-step Jacobians."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.flow.gradient_flow import in_tensors
from gradkeeper.callbacks.flow.spectrum import Spectrum, StepJacobian
from gradkeeper.callbacks.flow.unrolled import recurrent_layers, unrolled
from gradkeeper.callbacks.instrument.rollback import forward_pass_undone, functions_run_eagerly


@dataclass(frozen=True)
class LayerSpectrum:
    """Spectra of a recurrent layer.

    Attributes:
        layer: path of the layer.
        kernels: spectrum of each square block of the recurrent kernels, by name. Gated cells
            have one block per gate.
        jacobian: spectrum of the mean one-step Jacobian ∂s_{t+1}/∂s_t on the data; None without
            data.
        lyapunov: the largest Lyapunov exponents on the data, per step, in descending order; empty
            without data. An exponent above 0 means that gradients grow along the trajectory.
    """

    layer: str
    kernels: dict[str, Spectrum]
    jacobian: Spectrum | None = None
    lyapunov: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __str__(self) -> str:
        lines = [
            f"{name}: ρ {each.radius:.4g}, σ₁ {each.norm:.4g}: the gradient {each.prediction}"
            for name, each in self.kernels.items()
        ]
        if self.jacobian is not None:
            mean = self.jacobian
            lines.append(
                f"{self.layer}, mean Jacobian: ρ {mean.radius:.4g}, σ₁ {mean.norm:.4g}: "
                f"the gradient {mean.prediction}"
            )
        if len(self.lyapunov):
            values = ", ".join(f"{each:.4g}" for each in self.lyapunov)
            lines.append(f"{self.layer}, Lyapunov exponents per step: {values}")
        return "\n".join(lines)


@dataclass(frozen=True)
class SpectralReport:
    """Spectra of all recurrent layers of a model.

    Attributes:
        layers: the layers' spectra by path.
    """

    layers: dict[str, LayerSpectrum]

    def __getitem__(self, layer: str) -> LayerSpectrum:
        return self.layers[layer]

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers.values()))


def spectral_report(model: keras.Model, x: Any = None, *, exponents: int = 4) -> SpectralReport:
    """Compute the spectral radius ρ and largest singular value σ₁ that govern gradients in time.

    In a simple network, gradients are multiplied by the recurrent kernel (times the derivative of
    the activation) at each step. In a gated one, they are multiplied by the one-step Jacobian,
    which depends on the data.

    Args:
        model: a built model.
        x: a batch of inputs for Jacobians and Lyapunov exponents; None analyses the kernels only.
        exponents: number of Lyapunov exponents.

    Returns:
        The spectra of each recurrent layer.

    Raises:
        ValueError: if the model has no recurrent layer, or a kernel is not finite.
    """
    layers = recurrent_layers(model)
    if not layers:
        raise ValueError(
            "The model has no recurrent layer. Pass a model with a `keras.layers.RNN`. "
            f"Received: model={model.name!r}"
        )
    kernels = {path: _kernels(path, layer.cell) for path, layer in layers.items()}
    if x is None:
        return SpectralReport({path: LayerSpectrum(path, kernels[path]) for path in layers})
    found: dict[str, LayerSpectrum] = {}
    with functions_run_eagerly(), forward_pass_undone(model):
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            unrolled(layers, tape) as seen,
        ):
            model(in_tensors(x), training=False)
        for path, layer in layers.items():
            calls = [steps for steps in seen[path] if steps.given]
            if not calls:
                found[path] = LayerSpectrum(path, kernels[path])
                continue
            step = StepJacobian(layer.cell, calls[0])
            lyapunov = step.lyapunov_exponents(exponents)
            found[path] = LayerSpectrum(path, kernels[path], step.mean_spectrum(), lyapunov)
    return SpectralReport(found)


def _kernels(path: str, cell: Any) -> dict[str, Spectrum]:
    """Return the spectrum of each square block of the recurrent kernels, inner cells included."""
    found: dict[str, Spectrum] = {}
    for name, inner in _cells(path, cell):
        for weight in inner.weights:
            rows, *columns = weight.shape
            if "recurrent" not in weight.name or len(columns) != 1 or columns[0] % rows:
                continue
            blocks = np.split(keras.ops.convert_to_numpy(weight), columns[0] // rows, axis=1)
            for number, block in enumerate(blocks):
                label = f"{name}/{weight.name}" + (f"[{number}]" if len(blocks) > 1 else "")
                found[label] = Spectrum.of_matrix(block)
    return found


def _cells(path: str, cell: Any) -> list[tuple[str, Any]]:
    inner = getattr(cell, "cells", None)
    if inner is None:
        return [(path, cell)]
    return [(f"{path}/{each.name}", each) for each in inner]
