"""Gradient growth per step of a SimpleRNN, against ρ and σ₁ of its recurrent kernel."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from gradkeeper import zoo
from gradkeeper.callbacks import gradient_flow, spectral_report
from results.cell import Cell
from results.pictures import LINE, finish, of_quantity, values
from results.pictures import figure as new_figure
from results.published import PASCANU
from results.setup import Setup
from results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADII = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25)
MATRICES = ("Gaussian", "orthogonal", "triangular")
ACTIVATIONS = ("linear", "tanh")
SEEDS = (0, 1)
# Few steps, so that 0.5 to the power of their number is representable in float32.
STEPS, UNITS, EXAMPLES = 100, 128, 16
GROWTH, RADIUS, NORM = "growth per step", "spectral radius ρ", "largest singular value σ₁"


def kernel(kind: str, radius: float, units: int, seed: int) -> np.ndarray:
    """Return a recurrent kernel with a given spectral radius.

    Args:
        kind: "Gaussian"; "orthogonal", with ρ = σ₁; or "triangular", with Gaussian entries above
            a diagonal that falls from ρ to ρ / 2: far from normal, σ₁ much larger than ρ.
        radius: spectral radius ρ.
        units: number of rows and columns.
        seed: seed of the entries.
    """
    entries = np.random.default_rng(seed).normal(size=(units, units)) / np.sqrt(units)
    if kind == "orthogonal":
        return radius * np.linalg.qr(entries)[0]
    if kind == "triangular":
        return radius * (np.triu(entries, 1) + np.diag(np.linspace(1, 0.5, units)))
    return entries * radius / np.abs(np.linalg.eigvals(entries)).max()


def growth(matrix: np.ndarray, activation: str, steps: int, seed: int) -> tuple[float, float]:
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


def measure(setup: Setup) -> Iterator[Cell]:
    """See `Table`."""
    steps, units = (20, 8) if setup.quick else (STEPS, UNITS)
    radii = RADII[2:4] if setup.quick else RADII
    for activation in ACTIVATIONS:
        for kind in MATRICES:
            for radius in radii:
                yield from _cells(kind, activation, radius, steps, units)


def _cells(kind: str, activation: str, radius: float, steps: int, units: int) -> Iterator[Cell]:
    found = []
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        found.append(growth(kernel(kind, radius, units, seed), activation, steps, seed))
    growths, norms = np.mean(found, axis=0)
    is_linear = activation == "linear"
    common: dict[str, Any] = {
        "model": f"simple_rnn, {activation}",
        "setting": f"{kind}, ρ = {radius:g}",
        "seeds": ", ".join(map(str, SEEDS)),
        "settings": f"{units} units; {steps} steps; mean of the seeds",
    }
    yield Cell(**common, quantity=RADIUS, value=radius)
    yield Cell(**common, quantity=NORM, value=float(norms))
    yield Cell(
        **common,
        quantity=GROWTH,
        value=float(growths),
        published=radius if is_linear else None,
        source=PASCANU if is_linear else "",
    )


def draw(cells: Sequence[Cell]) -> "Figure":
    """See `Table`."""
    drawn = new_figure(10, 4.6)
    panels = drawn.subplots(1, len(ACTIVATIONS), sharey=True)
    for axes, activation in zip(panels, ACTIVATIONS, strict=True):
        for kind, marker, colour in zip(
            MATRICES, "os^", ("#00796b", "#5e35b1", "#d84315"), strict=True
        ):
            chosen = [
                cell
                for cell in cells
                if cell.model.endswith(activation) and cell.setting.startswith(kind)
            ]
            growths = values(of_quantity(chosen, GROWTH))
            radii = values(of_quantity(chosen, RADIUS))
            norms = values(of_quantity(chosen, NORM))
            axes.scatter(radii, growths, marker=marker, color=colour, label=kind, zorder=3)
            axes.plot(radii, norms, color=colour, linestyle=":", linewidth=1)
        limits = (min(radii) - 0.05, max(radii) + 0.05)
        axes.plot(limits, limits, color=LINE, linestyle="--", linewidth=1, label="growth = ρ")
        axes.set(xlabel="spectral radius ρ of the recurrent kernel")
        finish(axes, f"{activation}; dotted: σ₁")
    panels[0].set_ylabel("growth of the gradient per step back")
    return drawn


TABLE = Table(
    title="Gradient growth per step, against ρ and σ₁",
    text=(
        "Gradient of the loss with respect to the state, backpropagated through a `SimpleRNN` "
        "whose recurrent kernel has a given spectral radius ρ. Pascanu, Mikolov and Bengio (2013, "
        "section 2.1): in a linear network the gradient eventually grows by ρ per step; σ₁ below 1 "
        "is sufficient for vanishing gradients, and σ₁ above 1 is necessary for exploding ones. "
        "With tanh, whose slope is at most 1, a step stretches the gradient by at most σ₁. A kernel"
        " far from normal, such as the triangular one, stretches the gradient for many steps "
        "before the growth approaches ρ: 100 steps are too few, some 1,000 suffice. The published "
        "number is ρ, for the linear network."
    ),
    measure=measure,
    draw=draw,
)
