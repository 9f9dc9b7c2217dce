"""Script that draws the picture of the layer outputs in `docs/measurements.md`.

python docs/_pictures/layer_outputs.py
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.reporting.plots import plot_activations

PATH = Path(__file__).resolve().parents[1] / "layer-outputs.png"
SYMBOLS, LENGTH, WIDTH, EXAMPLES = 12, 16, 32, 1024


def main() -> None:
    """Draw the picture, and print what the text quotes."""
    for rate in (3e-3, 3e-2):
        history, accuracy = trained(rate)
        last = {
            name: history.activations.value(name)[-1, history.activations.names.index(call)]
            for name, call in (("entropy", "attention_2"), ("dead_units", "relu_2"))
        }
        print(f"rate {rate:g}: accuracy {accuracy:.3f}", *last.items())
    figure = plot_activations(history)
    figure.savefig(PATH, metadata={"Software": None})


def trained(rate: float) -> tuple[GradientHistory, float]:
    """Return the history of a transformer that learns to sort, and its last accuracy."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).integers(1, SYMBOLS, (EXAMPLES, LENGTH))
    model = transformer()
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    monitor = GradientMonitor(measurements=["activations"], rules=[], verbose=0)
    fit = model.fit(
        x, np.sort(x), batch_size=32, epochs=12, shuffle=False, verbose=0, callbacks=[monitor]
    )
    return monitor.history, fit.history["accuracy"][-1]


def transformer() -> keras.Model:
    """Return a transformer with two blocks."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    positions = layers.Embedding(LENGTH, WIDTH, name="positions")(np.arange(LENGTH)[np.newaxis])
    h = layers.Embedding(SYMBOLS, WIDTH, name="symbols")(tokens) + positions
    for block in (1, 2):
        attended = layers.MultiHeadAttention(2, WIDTH // 2, name=f"attention_{block}")(h, h)
        h = layers.LayerNormalization(name=f"norm_{block}")(h + attended)
        wide = layers.Dense(2 * WIDTH, "relu", name=f"relu_{block}")(h)
        h = h + layers.Dense(WIDTH, name=f"linear_{block}")(wide)
    return keras.Model(tokens, layers.Dense(SYMBOLS, "softmax", name="out")(h))


if __name__ == "__main__":
    main()
