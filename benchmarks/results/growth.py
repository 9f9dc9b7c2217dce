"""Gradient growth per step of a SimpleRNN, against ρ and σ₁ of its recurrent kernel."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import gradient_flow, spectral_report
from results.measurement import Measurement
from results.plots import LINE, new_figure, select, style_axes, values
from results.table import BenchConfig, Table

PASCANU = (
    "R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks, "
    "ICML 2013, section 2.1"
)
RADII = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25)
MATRICES = {"Gaussian": "#00796b", "orthogonal": "#5e35b1", "triangular": "#d84315"}  # colours
ACTIVATIONS = ("linear", "tanh")
SEEDS = (0, 1)
# Few steps, so that 0.5 to the power of their number is representable in float32.
STEPS, UNITS, EXAMPLES = 100, 128, 16
GROWTH, RADIUS, NORM = "growth per step", "spectral radius ρ", "largest singular value σ₁"
TEXT = """Gradient of the loss with respect to the state, backpropagated through a `SimpleRNN`
whose recurrent kernel has a given spectral radius ρ. Pascanu, Mikolov and Bengio (2013, section
2.1): in a linear network the gradient eventually grows by ρ per step; σ₁ below 1 is sufficient for
vanishing gradients, and σ₁ above 1 is necessary for exploding ones. With tanh, whose slope is at
most 1, a step stretches the gradient by at most σ₁. A kernel far from normal, such as the
triangular one, stretches the gradient for many steps before the growth approaches ρ: 100 steps are
too few, some 1,000 suffice. The published number is ρ, for the linear network."""


def _kernel(kind: str, radius: float, units: int, seed: int) -> np.ndarray:
    """Return a recurrent kernel with spectral radius ρ = `radius`, [units, units].

    `kind` is "Gaussian"; "orthogonal", with ρ = σ₁; or "triangular", with Gaussian entries above a
    diagonal that falls from ρ to ρ / 2: far from normal, σ₁ much larger than ρ.
    """
    entries = np.random.default_rng(seed).normal(size=(units, units)) / np.sqrt(units)
    if kind == "orthogonal":
        return radius * np.linalg.qr(entries)[0]
    if kind == "triangular":
        return radius * (np.triu(entries, 1) + np.diag(np.linspace(1, 0.5, units)))
    return entries * radius / np.abs(np.linalg.eigvals(entries)).max()


def _growth(matrix: np.ndarray, activation: str, steps: int, seed: int) -> tuple[float, float]:
    """Return the growth per step of ∂L/∂h, and σ₁ of the matrix from the spectral report.

    The growth is the geometric mean over the earlier half of the sequence: after so many steps
    back, only the most slowly decaying direction of the gradient remains.
    """
    units = len(matrix)
    model = zoo.create_model(
        "simple_rnn", input_shape=(steps, 2), output_units=1, units=units, activation=activation
    )
    model.layers[1].cell.recurrent_kernel.assign(matrix)
    model.compile("sgd", "mse")
    x = np.random.default_rng(seed).normal(0, 0.1, (EXAMPLES, steps, 2)).astype("float32")
    norm = gradient_flow(model, x, np.ones((EXAMPLES, 1), "float32")).states[0].norm
    half = steps // 2
    (spectrum,) = spectral_report(model).layers.values()
    (found,) = spectrum.kernels.values()
    return float((norm[0] / norm[half]) ** (1 / half)), found.norm


def _measure(config: BenchConfig) -> Iterator[Measurement]:
    steps, units = (20, 8) if config.quick else (STEPS, UNITS)
    radii = RADII[2:4] if config.quick else RADII
    for activation, kind, radius in itertools.product(ACTIVATIONS, MATRICES, radii):
        yield from _measurements(kind, activation, radius, steps, units)


def _measurements(
    kind: str, activation: str, radius: float, steps: int, units: int
) -> Iterator[Measurement]:
    found = []
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        found.append(_growth(_kernel(kind, radius, units, seed), activation, steps, seed))
    growths, norms = np.mean(found, axis=0)
    common: dict[str, Any] = {
        "model": f"simple_rnn, {activation}",
        "setting": f"{kind}, ρ = {radius:g}",
        "seeds": ", ".join(map(str, SEEDS)),
        "settings": f"{units} units; {steps} steps; mean of the seeds",
    }
    yield Measurement(**common, quantity=RADIUS, value=radius)
    yield Measurement(**common, quantity=NORM, value=float(norms))
    if activation == "linear":
        common |= {"published": radius, "source": PASCANU}
    yield Measurement(**common, quantity=GROWTH, value=float(growths))


def _draw(measurements: Sequence[Measurement]) -> Figure:
    figure = new_figure(10, 4.6)
    panels = figure.subplots(1, len(ACTIVATIONS), sharey=True)
    for axes, activation in zip(panels, ACTIVATIONS, strict=True):
        for (kind, colour), marker in zip(MATRICES.items(), "os^", strict=True):
            chosen = [
                each
                for each in measurements
                if each.model.endswith(activation) and each.setting.startswith(kind)
            ]
            radii = values(select(chosen, RADIUS))
            growths, norms = values(select(chosen, GROWTH)), values(select(chosen, NORM))
            axes.scatter(radii, growths, marker=marker, color=colour, label=kind, zorder=3)
            axes.plot(radii, norms, color=colour, linestyle=":", linewidth=1)
        limits = (min(radii) - 0.05, max(radii) + 0.05)
        axes.plot(limits, limits, color=LINE, linestyle="--", linewidth=1, label="growth = ρ")
        axes.set(xlabel="spectral radius ρ of the recurrent kernel")
        style_axes(axes, f"{activation}; dotted: σ₁")
    panels[0].set_ylabel("growth of the gradient per step back")
    return figure


TABLES = {
    "growth": Table(
        title="Gradient growth per step, against ρ and σ₁", text=TEXT, measure=_measure, draw=_draw
    )
}
