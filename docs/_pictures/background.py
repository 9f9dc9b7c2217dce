"""Script that draws the pictures of `docs/background.md`, `docs/background/*.svg`.

python docs/_pictures/background.py
"""

from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import GradientMonitor, gradient_flow, spectral_report

FOLDER = Path(__file__).resolve().parents[1] / "background"
STEPS = 100
# Label, entry, line style. Dashed: Gaussian recurrent matrix instead of Keras's orthogonal matrix.
CELLS = (
    ("simple_rnn", "simple_rnn", "--"),
    ("attention_rnn", "attention_rnn", "--"),
    ("irnn", "irnn", "-"),
    ("orthogonal_rnn", "orthogonal_rnn", "-"),
    ("lstm, cell state, forget bias 1", "lstm", "-"),
    ("lstm, cell state, forget bias 4", "lstm", "-"),
)
COLOURS = ("#00796b", "#d84315", "#5e35b1", "#f9a825", "#1565c0", "#546e7a")


def main() -> None:
    """Draw all pictures."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gradkeeper"})
    FOLDER.mkdir(exist_ok=True)
    pictures = {
        "spectrum": spectrum(),
        "saturation": saturation(),
        "wall": wall(),
        "cells": cells(),
    }
    for name, figure in pictures.items():
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})


def spectrum() -> Figure:
    """Draw the gradient of linear networks over the steps back, with powers of ρ and σ₁."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for radius, colour in zip((0.9, 1.0, 1.1), COLOURS, strict=False):
        kernel = np.random.default_rng(0).normal(size=(256, 256))
        kernel *= radius / np.abs(np.linalg.eigvals(kernel)).max()
        model = simple_rnn(kernel, "linear")
        norm = flow_of(model)
        (found,) = spectral_report(model)["simple_rnn"].kernels.values()
        back = np.arange(STEPS)
        label = f"ρ = {found.radius:.2f}, σ₁ = {found.norm:.2f}"
        axes.semilogy(back, norm, color=colour, label=label)
        axes.semilogy(back, radius**back, color=colour, linestyle="--", linewidth=1)
        axes.semilogy(back, found.norm**back, color=colour, linestyle=":", linewidth=1)
        print(f"{label}: growth per step {(norm[-1] / norm[49]) ** (1 / 50):.3f}")
    axes.set(ylim=(1e-6, 1e6))
    finish(axes, "dashed: ρ to the power of the steps; dotted: σ₁")
    return figure


def saturation() -> Figure:
    """Draw the gradients of equal matrices with three activations."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    row = figure.subplots(1, 3, sharey=True)
    for axes, activation in zip(row, ("linear", "relu", "tanh"), strict=True):
        for gain, colour in zip((0.8, 1.0, 1.3, 1.8), COLOURS, strict=False):
            kernel = gain * np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
            norm = flow_of(simple_rnn(kernel, activation))
            axes.semilogy(np.arange(STEPS), norm, color=colour, label=f"ρ = σ₁ = {gain}")
        axes.set(ylim=(1e-12, 1e12))
        finish(axes, activation)
    for axes in row[1:]:
        axes.get_legend().remove()
        axes.set(ylabel="")
    return figure


def cells() -> Figure:
    """Draw the gradients of six networks before training."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for (label, name, line), colour in zip(CELLS, COLOURS, strict=True):
        keras.utils.set_random_seed(0)
        options = {} if line == "-" else {"recurrent_initializer": "glorot_normal"}
        model = zoo.create_model(
            name, input_shape=(STEPS, 2), output_units=1, units=64, seed=0, **options
        )
        if "bias 4" in label:
            bias = model.get_layer("lstm_1").cell.bias
            bias.assign(np.repeat([0, 4, 0, 0], 64))  # gates i, f, c, o
        norm = flow_of(model, "c" if name == "lstm" else "h")
        axes.semilogy(np.arange(STEPS), norm, color=colour, linestyle=line, label=label)
    axes.set(ylim=(1e-10, 1e2))
    finish(axes, "before training")
    return figure


def wall() -> Figure:
    """Draw gradient descent at a steep wall of the loss, with and without clipping."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    surface, norms = figure.subplots(1, 2)
    w, b = np.meshgrid(np.linspace(3.8, 6, 300), np.linspace(-2.8, -1.8, 300))
    error = one_unit_error(w, b)
    shades = surface.contourf(w, b, error, levels=24, cmap="Greys")
    shades.set_rasterized(True)
    figure.colorbar(shades, ax=surface, label="error")
    for name, clip, colour in (("clipped", 0.1, COLOURS[0]), ("no clipping", None, COLOURS[1])):
        path, monitor = descend(clip)
        surface.plot(*path.T, color=colour, marker="o", markersize=2, linewidth=0.8, label=name)
        history = monitor.history
        norms.semilogy(history.steps, history.global_norm, color=colour, linewidth=1, label=name)
    surface.set(xlim=(3.8, 6), ylim=(-2.8, -1.8), xlabel="recurrent weight w", ylabel="bias b")
    norms.set(xlabel="train step", ylabel="norm of the gradient before clipping")
    norms.grid(alpha=0.3)
    for axes in (surface, norms):
        axes.legend(fontsize="small")
    return figure


def one_unit_error(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute (h_50 − 0.7)² for h_t = sigmoid(w h_{t-1} + b), h_0 = 0."""
    h = np.zeros_like(w)
    for _ in range(50):
        h = 1 / (1 + np.exp(-(w * h + b)))
    return (h - 0.7) ** 2


def descend(clip: float | None) -> tuple[np.ndarray, GradientMonitor]:
    """Run gradient descent from above the wall.

    Args:
        clip: the `global_clipnorm`, or None.

    Returns:
        The weights (w, b) before each step, [steps, 2], and the monitor.
    """
    layer = keras.layers.SimpleRNN(1, activation="sigmoid", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((50, 1)), layer])
    layer.cell.kernel.trainable = False
    layer.set_weights([np.zeros((1, 1)), np.array([[5.5]]), np.array([-2.2])])
    model.compile(keras.optimizers.SGD(0.5, global_clipnorm=clip), "mse")
    path: list[list[float]] = []

    def note(batch: int, logs: object = None) -> None:
        path.append([float(layer.cell.recurrent_kernel[0, 0]), float(layer.cell.bias[0])])

    monitor = GradientMonitor(verbose=0)
    follow = keras.callbacks.LambdaCallback(on_train_batch_begin=note)
    x, y = np.zeros((300, 50, 1)), np.full((300, 1), 0.7)
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[monitor, follow])
    return np.array(path), monitor


def simple_rnn(kernel: np.ndarray, activation: str) -> keras.Model:
    """Create a simple RNN whose recurrent matrix is W in h_t = φ(W h_{t-1} + ...)."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.SimpleRNN(len(kernel), activation=activation, name="simple_rnn")
    model = keras.Sequential([keras.Input((STEPS, 2)), layer, keras.layers.Dense(1)])
    layer.cell.recurrent_kernel.assign(kernel.T)  # Keras multiplies from the right
    return model


def flow_of(model: keras.Model, state: str = "h") -> np.ndarray:
    """Compute the norm of ∂L/∂h by steps back, relative to the last step. L sums the outputs."""
    x = np.random.default_rng(0).uniform(size=(16, STEPS, 2)).astype("float32")
    flow = gradient_flow(model, x, loss=keras.ops.sum)
    norm = next(each for each in flow if each.state == state).norm[::-1]
    return norm / (norm[0] or norm.max())


def finish(axes: Axes, title: str) -> None:
    """Set labels, title, grid and legend."""
    axes.set(xlabel="steps back in time", ylabel="‖∂L/∂h‖, relative to the last step")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


if __name__ == "__main__":
    main()
