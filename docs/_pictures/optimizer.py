"""Script that draws the picture of the optimizer state in `docs/measurements.md`.

python docs/_pictures/optimizer.py
"""

from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradkeeper.callbacks import GradientHistory, GradientMonitor

PATH = Path(__file__).resolve().parents[1] / "optimizer-state.svg"
INPUTS, OUTLIER = 8, 100


def main() -> None:
    """Draw the picture."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gradkeeper"})
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 3), (cosines, outlier, noise_scale), strict=True):
        draw(axes)
        axes.set_xlabel("train step")
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small", frameon=False)
    figure.savefig(PATH, metadata={"Date": None, "Creator": None})


def trained(
    optimizer: keras.optimizers.Optimizer,
    batch_size: int,
    *,
    steps: int = 300,
    outlier: float = 1.0,
) -> GradientHistory:
    """Return the history of a regression; one batch has targets `outlier` times as large."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(steps * batch_size, INPUTS)).astype("float32")
    y = np.sin(x[:, :1]) + x[:, 1:2] + 0.1 * random.normal(size=(len(x), 1))
    y[OUTLIER * batch_size : (OUTLIER + 1) * batch_size] *= outlier
    layers = [keras.layers.Dense(32, "tanh", name="hidden"), keras.layers.Dense(1, name="out")]
    model = keras.Sequential([keras.Input((INPUTS,)), *layers])
    model.compile(optimizer, "mse")
    monitor = GradientMonitor(measurements=["optimizer"], rules=[], verbose=0)
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor.history


def cosines(axes: Axes) -> None:
    """Draw the cosine of successive gradients for two learning rates."""
    for rate in (0.02, 0.25):
        history = trained(keras.optimizers.SGD(rate), batch_size=256)
        cosine = history.value("gradient_cosine")[:, history.variables.index("out/kernel")]
        axes.plot(history.steps, cosine, lw=0.9, label=f"SGD({rate:g})")
        print(f"learning rate {rate:g}: median cosine {np.nanmedian(cosine[50:]):.2f}")
    axes.set(title="gradient_cosine, out/kernel", ylim=(-1.05, 1.05))


def outlier(axes: Axes) -> None:
    """Draw the state of Adam after a batch with an outlier."""
    history = trained(keras.optimizers.Adam(0.001), batch_size=64, outlier=100.0)
    column = history.variables.index("hidden/kernel")
    state = {
        "first_moment_rms": history.value("first_moment_rms")[:, column],
        "√ second_moment_rms": np.sqrt(history.value("second_moment_rms")[:, column]),
        "update_rms": history.value("update_rms")[:, column],
    }
    for label, values in state.items():
        axes.semilogy(history.steps, values, lw=1.2, label=label)
    update = state["update_rms"]
    before, after = np.median(update[OUTLIER - 20 : OUTLIER]), np.median(update[-100:])
    print(f"update before the outlier {before:.2g}, in the last 100 steps {after:.2g}")
    axes.set(title=f"Adam, one outlier at step {OUTLIER}", ylim=(None, 100.0))


def noise_scale(axes: Axes) -> None:
    """Draw the noise scale of successive windows: it grows as the gradient becomes small."""
    optimizer = keras.optimizers.SGD(0.004, gradient_accumulation_steps=8)
    window = trained(optimizer, batch_size=16, steps=1600).since(0)
    starts = np.arange(0, 1600, 400)
    scales = [window[start : start + 400].noise_scale(16).value for start in starts]
    axes.semilogy(starts + 200, scales, "o-", label="windows of 400 steps")
    print("noise scale:", ", ".join(f"{each:.3g}" for each in scales))
    axes.set(title="noise_scale, in examples")


if __name__ == "__main__":
    main()
