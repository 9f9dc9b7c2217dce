"""Gradients that vanish over depth: a deep convolutional network.

    python examples/convolutional_depth.py

Trains sixteen convolutions with sigmoid activations, with ReLU, and with ReLU and residual
connections. Prints the gradient norm of the first and the last convolution, and writes
`convolutional-depth.png`: norm by layer, from the input to the output.
"""

import keras
import numpy as np
import typer
from matplotlib.figure import Figure

from gradkeeper.callbacks import GradientMonitor


def build(depth: int, activation: str, residual: bool) -> keras.Model:
    """Create a classifier of 16 by 16 images with four classes."""
    x = inputs = keras.Input((16, 16, 8))
    for number in range(1, depth + 1):
        convolution = keras.layers.Conv2D(
            8, 3, padding="same", activation=activation, name=f"conv_{number:02d}"
        )
        x = keras.layers.Add()([x, convolution(x)]) if residual else convolution(x)
    outputs = keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def images(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with a brighter quarter, [examples, 16, 16, 8], and the quarter's number."""
    random = np.random.default_rng(0)
    x, quarter = random.normal(size=(examples, 16, 16, 8)), random.integers(0, 4, examples)
    for image, which in zip(x, quarter, strict=True):
        row, column = divmod(int(which), 2)
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, which] += 1
    return x.astype("float32"), quarter


def main(depth: int = 16, examples: int = 2000) -> None:
    """Train three networks for one epoch each, print and plot."""
    x, y = images(examples)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    networks = {
        "sigmoid": ("sigmoid", False),
        "relu": ("relu", False),
        "relu, residual": ("relu", True),
    }
    for name, (activation, residual) in networks.items():
        keras.utils.set_random_seed(0)
        model = build(depth, activation, residual)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        monitor = GradientMonitor(verbose=0)
        model.fit(x, y, verbose=0, callbacks=[monitor])
        layers = [i for i, layer in enumerate(monitor.history.layers) if "conv" in layer]
        norms = np.median(monitor.history.layer_norms[:, layers], axis=0)
        print(
            f"{name:15} first convolution {norms[0]:9.3g}, last {norms[-1]:9.3g}, "
            f"findings: {', '.join(sorted({f.rule for f in monitor.findings})) or 'none'}"
        )
        axes.semilogy(range(1, depth + 1), norms, marker="o", label=name)
    axes.set(xlabel="convolution, from the input", ylabel="median gradient norm")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("convolutional-depth.png")
    print("Picture: convolutional-depth.png")


if __name__ == "__main__":
    typer.run(main)
