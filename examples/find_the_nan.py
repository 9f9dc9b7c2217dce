"""A NaN that only occurs in the backward pass, kept out of the weights and traced to its line.

    python examples/find_the_nan.py

A network learns the distance between two points. The distance is a root, whose slope at 0 is
infinite: training works until both points of a pair are equal. Then the loss is finite, but the
gradient is not. Writes `capsules/` (the failing step) and `find-the-nan.png`.
"""

from pathlib import Path

import keras
import numpy as np
import typer

from gradkeeper.callbacks import NonFiniteGuard, replay
from gradkeeper.callbacks.diagnosis import plot_verdict


@keras.saving.register_keras_serializable("examples")
class Distance(keras.layers.Layer):
    """Euclidean distance between two embeddings."""

    def call(self, points: list) -> object:
        one, other = points
        squared = keras.ops.sum(keras.ops.square(one - other), axis=-1, keepdims=True)
        return keras.ops.sqrt(squared)


def build() -> keras.Model:
    """Create a model that embeds two points with one layer and returns their distance."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((3,), name="one"), keras.Input((3,), name="other")]
    embed = keras.layers.Dense(8, name="embed")
    distance = Distance(name="distance")([embed(each) for each in inputs])
    model = keras.Model(inputs, distance)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def pairs(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return pairs of points and their measured distances; the points of pair 200 are equal."""
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, count, 3)).astype("float32")
    other[200] = one[200]
    measured = np.linalg.norm(one - other, axis=1) + random.normal(scale=0.1, size=count)
    return [one, other], measured[:, np.newaxis]


def main(count: int = 512, out: Path = Path("find-the-nan.png")) -> None:
    """Train with a guard, replay the skipped step, and plot it."""
    model, guard = build(), NonFiniteGuard()
    x, y = pairs(count)
    model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0, callbacks=[guard])
    (event,) = guard.events
    assert event.capsule is not None
    verdict = replay(event.capsule)
    print(verdict)
    plot_verdict(verdict).savefig(out)
    finite = all(np.isfinite(weight).all() for weight in model.get_weights())
    print(f"Weights finite: {finite}. Picture: {out}")


if __name__ == "__main__":
    typer.run(main)
