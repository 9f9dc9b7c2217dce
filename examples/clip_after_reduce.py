"""Clipping each replica's gradient compared with clipping the sum of the gradients.

    python examples/clip_after_reduce.py

Uses two replicas on one CPU. The first part is an extreme case: a single weight with a gradient of
10 on one replica and -9 on the other. The second part trains a network on data with heavy-tailed
noise: on one device, on two replicas with Keras's clipping, and on two replicas with
`ClipAfterReduce`. Writes `clip-after-reduce.png`.
"""

import keras
import numpy as np
import tensorflow as tf
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradkeeper import zoo
from gradkeeper.callbacks import ClipAfterReduce

Strategy = tf.distribute.Strategy


def two_replicas() -> Strategy:
    """Create a strategy over two halves of the CPU; call this before TensorFlow is initialized."""
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def update(strategy: Strategy, callbacks: list[keras.callbacks.Callback]) -> float:
    """Return the change of a weight with gradients 10 and -9 in one SGD step with `clipnorm=1`."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(1.0, clipnorm=1.0), lambda y, output: output * y)
    before = model.get_weights()[0].item()
    # The loss is the mean over both examples: each replica's gradient is half of x times y.
    x, y = np.array([[1.0], [1.0]]), np.array([[20.0], [-18.0]])
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
    return model.get_weights()[0].item() - before


def data(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences and their sums; a few of the sums are far off."""
    random = np.random.default_rng(0)
    x = random.normal(size=(examples, 12, 2)).astype("float32")
    far_off = random.standard_t(1.5, size=(examples, 1)).clip(-100, 100)
    return x, (x[:, :, :1].sum(axis=1) + far_off).astype("float32")


def train(strategy: Strategy, callbacks: list[keras.callbacks.Callback], steps: int) -> np.ndarray:
    """Train a network and return the loss up to each step."""
    losses: list[float] = []
    noted = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = zoo.create_model("gru", input_shape=(12, 2), output_units=1, units=16)
        model.compile(keras.optimizers.SGD(0.5, global_clipnorm=0.2), "mae")
    x, y = data(8 * steps)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[*callbacks, noted])
    return np.array(losses)


def draw_update(axes: Axes, updates: dict[str, float]) -> None:
    """Plot the two gradients and the weight's update with each kind of clipping."""
    names = ["replica 0", "replica 1", *updates]
    values = [10.0, -9.0, *updates.values()]
    bars = axes.bar(names, values, color=["0.75", "0.75", "C3", "C2"])
    axes.bar_label(bars, fmt="{:.3g}", padding=2)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(title="Gradients 10 and −9, clipnorm=1", ylabel="gradient, and minus the update")
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(y=0.15)


def main(steps: int = 300) -> None:
    """Train, print the distances from the training on one device, and plot."""
    several, one = two_replicas(), tf.distribute.get_strategy()
    updates = {
        "Keras:\nclip, then add": -update(several, []),
        "ClipAfterReduce:\nadd, then clip": -update(several, [ClipAfterReduce()]),
    }
    for name, value in updates.items():
        print(f"{name.splitlines()[0]:16} applies, for gradients of 10 and -9, {value + 0.0:.3g}")
    alone = train(one, [], steps)
    clipped_apart = train(several, [], steps)
    clipped_together = train(several, [ClipAfterReduce()], steps)

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.1, 1.1])
    draw_update(left, updates)
    middle.plot(alone, color="black", lw=3, alpha=0.35, label="one device")
    middle.plot(clipped_apart, color="C3", label="two replicas, Keras")
    middle.plot(clipped_together, color="C2", ls="--", label="two replicas, ClipAfterReduce")
    middle.set(
        title="global_clipnorm=0.2", xlabel="train step", ylabel="mean absolute error so far"
    )
    middle.legend()
    for losses, color, name in (
        (clipped_apart, "C3", "Keras"),
        (clipped_together, "C2", "ClipAfterReduce"),
    ):
        apart = np.abs(losses / alone - 1)
        print(f"{name:16} differs from one device by at most {apart.max():.1e}")
        right.semilogy(apart.clip(1e-8), color=color, label=name)
    right.set(title="Distance from one device", xlabel="train step", ylabel="relative, of the loss")
    right.legend()
    figure.savefig("clip-after-reduce.png", dpi=120)
    print("Picture: clip-after-reduce.png")


if __name__ == "__main__":
    typer.run(main)
