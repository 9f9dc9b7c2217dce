"""A network without clipping, and with each of the three kinds of clipping.

    python examples/clipping_compared.py

A simple network learns the adding problem; its recurrent matrix stretches the gradient at every
step. Writes `clipping-compared.png`: the norm before clipping, the applied norm, and the loss.
"""

import keras
import numpy as np
import typer
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import GradientMonitor
from gradkeeper.training import load_task, make_optimizer

CLIPPINGS: dict[str, dict[str, float]] = {
    "none": {},
    "clipnorm=0.5": {"clipnorm": 0.5},
    "global_clipnorm=1": {"global_clipnorm": 1.0},
    "clipvalue=0.1": {"clipvalue": 0.1},
}


def train(
    clipping: dict[str, float], steps: int, length: int
) -> tuple[list[float], GradientMonitor]:
    """Train once and return the losses, one per ten steps, and the monitor."""
    keras.utils.set_random_seed(0)
    task = load_task("adding", length=length)
    model = zoo.create_model(
        "simple_rnn",
        input_shape=task.input_shape,
        output_units=1,
        units=32,
        activation="relu",
        recurrent_initializer=keras.initializers.Orthogonal(gain=1.3, seed=0),
    )
    model.compile(make_optimizer("sgd", 0.05, **clipping), loss=task.loss)
    monitor = GradientMonitor(verbose=0)
    history = model.fit(
        task.train_dataset(32, endless=True),
        epochs=steps // 10,
        steps_per_epoch=10,
        shuffle=False,
        verbose=0,
        callbacks=[monitor],
    )
    return history.history["loss"], monitor


def main(steps: int = 1000, length: int = 20) -> None:
    """Train four times, print a line for each training, and plot."""
    figure = Figure(figsize=(15, 6), layout="constrained")
    axes = figure.subplots(2, len(CLIPPINGS), sharex=True, sharey="row")
    for (name, clipping), (norms, loss) in zip(CLIPPINGS.items(), axes.T, strict=True):
        losses, monitor = train(clipping, steps, length)
        history = monitor.history
        largest, changed = np.nanmax(history.global_norm), 100 * history.clip_fraction
        print(
            f"{name:18} largest norm {largest:10.3g}  clipped {changed:5.1f} % of the steps  "
            f"last loss {losses[-1]:.4f}"
        )
        norms.semilogy(history.steps, history.global_norm, label="before clipping")
        norms.semilogy(history.steps, history.applied_global_norm, label="applied")
        norms.set(title=name)
        loss.semilogy(np.arange(1, len(losses) + 1) * 10, losses, color="black")
        loss.axhline(1 / 6, linestyle=":", color="gray", label="baseline 1/6")
        loss.set(xlabel="train step")
    labels = "global gradient norm", "mean squared error"
    for first, label in zip(axes[:, 0], labels, strict=True):
        first.set(ylabel=label)
        first.legend()
    figure.savefig("clipping-compared.png")
    print("Picture: clipping-compared.png")


if __name__ == "__main__":
    typer.run(main)
