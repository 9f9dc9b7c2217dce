"""What a GradientMonitor costs: plain train steps against watched ones, interleaved.

    python benchmarks/overhead.py

Prints, for each model, the median time of a plain step, and the median ratio of a watched step to
the plain step beside it with its quartiles. Timings on a busy machine are noisy: the ratio of
neighbours is what to read.
"""

import time
from collections.abc import Callable

import keras
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from gradkeeper.callbacks import GradientMonitor

BATCH = 32
STEPS_PER_TURN = 10


def mlp() -> tuple[keras.Model, np.ndarray]:
    """Eight dense layers of 512 units."""
    layers = [keras.layers.Dense(512, "relu") for _ in range(8)]
    model = keras.Sequential([keras.Input((512,)), *layers, keras.layers.Dense(1)])
    return model, np.random.default_rng(0).normal(size=(BATCH, 512))


def cnn() -> tuple[keras.Model, np.ndarray]:
    """A small convolutional network on 32 by 32 images."""
    layers = [keras.layers.Conv2D(n, 3, activation="relu", strides=2) for n in (32, 64, 64)]
    head = [keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers, *head])
    return model, np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3))


def lstm() -> tuple[keras.Model, np.ndarray]:
    """One LSTM of 128 units over 100 steps."""
    layers = [keras.Input((100, 2)), keras.layers.LSTM(128), keras.layers.Dense(1)]
    return keras.Sequential(layers), np.random.default_rng(0).normal(size=(BATCH, 100, 2))


def language_model() -> tuple[keras.Model, np.ndarray]:
    """Embedding and GRU over 50 tokens."""
    layers = [
        keras.Input((50,), dtype="int32"),
        keras.layers.Embedding(1000, 64),
        keras.layers.GRU(128),
        keras.layers.Dense(1),
    ]
    return keras.Sequential(layers), np.random.default_rng(0).integers(0, 1000, (BATCH, 50))


MODELS = (mlp, cnn, lstm, language_model)


def measure(
    build: Callable[[], tuple[keras.Model, np.ndarray]], jit_compile: bool, turns: int
) -> tuple[float, np.ndarray]:
    """Seconds of a plain step (median), and watched over plain, [turns]."""
    model, x = build()
    model.compile(keras.optimizers.Adam(1e-4), "mse", jit_compile=jit_compile)
    x, y = np.repeat(x, STEPS_PER_TURN, axis=0), np.zeros((BATCH * STEPS_PER_TURN, 1))
    monitor = GradientMonitor(verbose=0)

    def seconds(callbacks: list[keras.callbacks.Callback]) -> float:
        start = time.perf_counter()
        model.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=callbacks)
        return (time.perf_counter() - start) / STEPS_PER_TURN

    pairs = np.array([(seconds([]), seconds([monitor])) for _ in range(turns + 1)])[1:]
    return float(np.median(pairs[:, 0])), pairs[:, 1] / pairs[:, 0]


def main(turns: int = 30, jit_compile: bool = False) -> None:
    """Measures every model and prints a table."""
    table = Table(
        "model", "plain step", "watched / plain", "quartiles", title="Cost of the monitor"
    )
    for build in MODELS:
        plain, ratios = measure(build, jit_compile, turns)
        low, median, high = np.percentile(ratios, [25, 50, 75])
        table.add_row(
            build.__name__, f"{1e3 * plain:.2f} ms", f"{median:.3f}", f"{low:.3f} – {high:.3f}"
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
