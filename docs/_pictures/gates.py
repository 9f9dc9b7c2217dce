"""Script that draws the picture of `gate_report` in the guide of gradients through time.

python docs/_pictures/gates.py
"""

from pathlib import Path

import keras
import numpy as np

from gradkeeper.callbacks import gate_report, gradient_flow

TARGET = Path(__file__).resolve().parents[1] / "gates.png"
TIME, BATCH, STEPS = 50, 50, 1500


def batches(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the adding problem: the sum of the two marked numbers, one in each half."""
    random = np.random.default_rng(seed)
    numbers = random.uniform(size=(count, TIME))
    marks = np.zeros((count, TIME))
    for half in range(2):
        marks[np.arange(count), random.integers(0, TIME // 2, count) + half * TIME // 2] = 1
    return np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1, keepdims=True)


def main() -> None:
    """Train a GRU on the adding problem, and draw its gates after the training."""
    keras.utils.set_random_seed(0)
    gru = keras.layers.GRU(32, name="gru")
    model = keras.Sequential([keras.Input((TIME, 2)), gru, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.003, global_clipnorm=1.0), "mse")
    x, y = batches(200, seed=1)
    print(gate_report(model, x), gradient_flow(model, x, y), sep="\n")
    history = model.fit(*batches(STEPS * BATCH, seed=2), batch_size=BATCH, verbose=0)
    loss = model.evaluate(*batches(1000, seed=3), verbose=0)
    print(f"loss {history.history['loss'][-1]:.3g}, on new data {loss:.3g}")
    report = gate_report(model, x)
    print(report, gradient_flow(model, x, y), sep="\n")
    report.plot().savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
