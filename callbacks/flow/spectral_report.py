"""Spectra of recurrent kernels and one-step Jacobians."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import keras
import numpy as np

from gradkeeper.callbacks.flow.backend import unrolled_pass
from gradkeeper.callbacks.flow.step_jacobian import StepJacobian
from gradkeeper.callbacks.flow.unrolled import in_tensors, layers_to_unroll

Product: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Up to this size, the matrix is built from its products with unit vectors.
_SMALL = 64
_KRYLOV = 60
_POWER_STEPS = 200
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Spectrum:
    """Spectral radius and largest singular value of a matrix.

    Attributes:
        radius: spectral radius ρ, the largest magnitude of an eigenvalue. It is the growth
            factor per step over many steps.
        norm: largest singular value σ₁. It is the largest growth factor of one step.
    """

    radius: float
    norm: float

    @property
    def prediction(self) -> str:
        """Return the predicted behaviour of a gradient that the matrix multiplies at every step.

        σ₁ < 1 is sufficient for vanishing gradients; σ₁ > 1 is necessary, but not sufficient, for
        exploding gradients (Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 2.1). ρ is the
        growth factor per step.
        """
        growth = f"times {self.radius:.3g} per step in the long run"
        if self.norm < 1:
            return f"vanishes, {growth}"
        trend = "grows" if self.radius > 1 else "fades"
        return f"{trend}, {growth}, at most {self.norm:.3g} in one step"

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Spectrum":
        """Compute the spectrum of a square matrix.

        Raises:
            ValueError: if the matrix contains NaN or infinity.
        """
        if not np.isfinite(matrix).all():
            raise ValueError(
                "The matrix is not finite. Restore finite weights. Received: matrix with NaN or "
                "infinity"
            )
        matrix = np.asarray(matrix, np.float64)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        return cls(float(radius), float(np.linalg.norm(matrix, 2)))

    @classmethod
    def of_products(cls, size: int, times: Product, transposed_times: Product) -> "Spectrum":
        """Compute the spectrum of a linear operator from its products with vectors.

        Args:
            size: number of rows and of columns.
            times: returns the matrix times a vector, [size].
            transposed_times: returns the transposed matrix times a vector, [size].
        """
        if size <= _SMALL:
            return cls.of_matrix(np.stack([times(row) for row in np.eye(size)], axis=1))
        return cls(_radius(size, times), _norm(size, times, transposed_times))


def _radius(size: int, times: Product) -> float:
    """Compute the spectral radius from a Krylov subspace (Arnoldi's method)."""
    count = min(_KRYLOV, size)
    basis = np.zeros((count + 1, size))
    small = np.zeros((count + 1, count))
    basis[0] = _start(size)
    for step in range(count):
        vector = times(basis[step])
        for _ in range(2):  # the second pass removes the rounding error of the first
            parts = basis[: step + 1] @ vector
            vector = vector - parts @ basis[: step + 1]
            small[: step + 1, step] += parts
        length = np.linalg.norm(vector)
        small[step + 1, step] = length
        if length < _TOLERANCE:
            count = step + 1
            break
        basis[step + 1] = vector / length
    return float(np.abs(np.linalg.eigvals(small[:count, :count])).max())


def _norm(size: int, times: Product, transposed_times: Product) -> float:
    """Compute the largest singular value (power method on the transpose times the matrix)."""
    vector, before = _start(size), 0.0
    for _ in range(_POWER_STEPS):
        vector = transposed_times(times(vector))
        length = float(np.linalg.norm(vector))
        if length == 0 or abs(length - before) <= _TOLERANCE * length:
            break
        vector, before = vector / length, length
    return float(np.sqrt(length))


def _start(size: int) -> np.ndarray:
    vector = np.random.default_rng(0).normal(size=size)
    return vector / np.linalg.norm(vector)


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
        spectra = dict(self.kernels)
        if self.jacobian is not None:
            spectra[f"{self.layer}, mean Jacobian"] = self.jacobian
        lines = [
            f"{name}: ρ {each.radius:.4g}, σ₁ {each.norm:.4g}: the gradient {each.prediction}"
            for name, each in spectra.items()
        ]
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
        RuntimeError: on JAX, if a recurrent layer is called inside `jax.jit`, `jax.checkpoint` or
            `jax.vmap`.
    """
    layers = layers_to_unroll(model)
    found = {path: LayerSpectrum(path, _kernels(path, each.cell)) for path, each in layers.items()}
    if x is None:
        return SpectralReport(found)
    with unrolled_pass(model, layers) as seen:
        model(in_tensors(x), training=False)
        for path, layer in layers.items():
            if seen[path]:
                step = StepJacobian(layer.cell, seen[path][0])
                found[path] = replace(
                    found[path],
                    jacobian=Spectrum.of_products(step.size, step.times, step.transposed_times),
                    lyapunov=step.lyapunov_exponents(exponents),
                )
    return SpectralReport(found)


def _kernels(path: str, cell: Any) -> dict[str, Spectrum]:
    """Return the spectrum of each square block of the recurrent kernels, inner cells included."""
    inner = getattr(cell, "cells", None)
    cells = [(path, cell)] if inner is None else [(f"{path}/{each.name}", each) for each in inner]
    found: dict[str, Spectrum] = {}
    for name, each in cells:
        for weight in each.weights:
            rows, *columns = weight.shape
            if "recurrent" not in weight.name or len(columns) != 1 or columns[0] % rows:
                continue
            blocks = np.split(keras.ops.convert_to_numpy(weight), columns[0] // rows, axis=1)
            for number, block in enumerate(blocks):
                label = f"{name}/{weight.name}" + (f"[{number}]" if len(blocks) > 1 else "")
                found[label] = Spectrum.of_matrix(block)
    return found
