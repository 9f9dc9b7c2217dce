"""A Keras project without gradkeeper, and the one line that attaches the monitor.

    python examples/attach_to_keras_project.py

The project is an LSTM that classifies noisy sine waves as rising or falling in frequency. Its
learning rate is a thousand times too high, and the loss does not show why it fails to learn.
"""

import keras
import numpy as np

from gradkeeper.callbacks import GradientMonitor


def waves(examples: int, steps: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy sine waves [examples, steps, 1] that speed up (1) or slow down (0)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, examples)
    time = np.linspace(0, 6, steps)
    phase = time + np.where(labels, 1, -1)[:, None] * time**2 / 12
    noise = random.normal(scale=0.3, size=phase.shape)
    return (np.sin(phase) + noise)[..., None].astype("float32"), labels


def build(learning_rate: float) -> keras.Model:
    """Create the project's compiled model."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((60, 1)), keras.layers.LSTM(32), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return model


def main(learning_rate: float = 100.0, epochs: int = 3) -> None:
    """Train with the monitor attached and write its report."""
    x, y = waves(1000)
    model = build(learning_rate)

    monitor = GradientMonitor()  # the added line; pass it to `fit` in the next
    model.fit(x, y, epochs=epochs, verbose=2, callbacks=[monitor])

    history = monitor.history
    print(f"\n{len(history)} train steps, {len(history.variables)} variables:")
    for layer, norms in zip(history.layers, history.layer_norms.T, strict=True):
        print(f"  {layer:20} median norm {np.median(norms):9.3g}, largest {norms.max():9.3g}")
    for finding in monitor.findings:
        print(finding)
    print("Report:", monitor.report("gradient-report.html"))


if __name__ == "__main__":
    import typer

    typer.run(main)
