"""Script that each worker of `test_multi_worker.py` runs: fits, with their results as JSON."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import ClipAfterReduce, GradientMonitor, NonFiniteGuard
from gradkeeper.training import enable_multi_worker, make_optimizer

LONG, SHORT = 34, 4  # rounds of three steps
OPTIMIZERS = {
    "no clipping": lambda: keras.optimizers.Adam(0.01),
    "clipnorm": lambda: make_optimizer("adam", 0.01, clipnorm=0.05),
    "global_clipnorm": lambda: make_optimizer("adam", 0.01, global_clipnorm=0.05),
    "clipvalue": lambda: make_optimizer("adam", 0.01, clipvalue=0.02),
    "ClipAfterReduce": lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.05),
    "accumulation": lambda: make_optimizer("sgd", 0.1, gradient_accumulation_steps=2, clipnorm=1.0),
}


class Noted(keras.callbacks.Callback):
    """Record the mean losses up to each step."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


class OwnStep(keras.Model):
    """Model with a custom train step."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(1)

    def call(self, inputs):
        return self.inner(inputs)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"own": tf.reduce_mean(y), "vector": tf.stack([1.0, 3.0])}


def repeated(data, rounds):
    return tuple(np.tile(each, (rounds, *[1] * (each.ndim - 1))) for each in data)


def trained(kind, strategy):
    """Return losses and weights after 102 steps, or 12 for a limit per variable or element.

    Without clipping, also return the results of validation, `evaluate` and `predict`.
    """
    with strategy.scope():
        model, data = compiled(
            "dense",
            optimizer=OPTIMIZERS[kind](),
            metrics=[keras.metrics.MeanAbsoluteError(name="mae")],
        )
    enable_multi_worker(model)
    noted = Noted()
    clipping = [ClipAfterReduce()] if kind == "ClipAfterReduce" else []
    rounds = LONG if kind in ("no clipping", "global_clipnorm") else SHORT
    options = {"callbacks": [*clipping, noted]}
    if kind == "no clipping":
        options["validation_data"] = (data[0][:13], data[1][:13])
    history = fit(model, repeated(data, rounds), **options).history
    found = {
        "losses": noted.losses,
        "weights": [weight.tolist() for weight in model.get_weights()],
    }
    if kind == "no clipping":
        found["val_loss"] = history["val_loss"]
        found["evaluated"] = model.evaluate(data[0][:13], data[1][:13], batch_size=8, verbose=0)
        found["predicted"] = model.predict(data[0][:13], batch_size=8, verbose=0).tolist()
    return found


def observed(strategy, folder):
    """Train with monitor and guard; the second worker's part of step 4 contains a NaN."""
    with strategy.scope():
        model, (x, y) = compiled("dense")
    enable_multi_worker(model)
    x, y = repeated((x, y), 2)
    x[4 * 8 + 5, 2] = np.nan
    monitor = GradientMonitor(log_dir=folder / "gradients", verbose=0)
    guard = NonFiniteGuard("skip", capsule_dir=folder / "capsules", verbose=0)
    history = fit(model, (x, y), callbacks=[monitor, guard]).history
    return {
        "skipped": guard.skipped,
        "events": [str(event) for event in guard.events],
        "replicas": [list(event.replicas) for event in guard.events],
        "capsules": [str(event.capsule) for event in guard.events],
        "steps": monitor.history.steps.tolist(),
        "norms": monitor.history.norms.tolist(),
        "replica_norms": monitor.history.replica_global_norms.tolist(),
        "skipped_rows": monitor.history.skipped.tolist(),
        "logged": history["skipped_steps"],
        "weights": [weight.tolist() for weight in model.get_weights()],
    }


def unguarded(strategy):
    """Return the findings for a NaN in the second worker's part of the last step."""
    with strategy.scope():
        model, (x, y) = compiled("dense")
    enable_multi_worker(model)
    x[2 * 8 + 5, 2] = np.nan
    monitor = GradientMonitor(verbose=0)
    fit(model, (x, y), callbacks=[monitor])
    return [finding.message for finding in monitor.findings]


def own_step(strategy):
    """Return the logs of a custom train step with two steps per execution."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = OwnStep()
        model.compile("sgd", "mse", steps_per_execution=2)
    enable_multi_worker(enable_multi_worker(model))
    x = np.arange(12, dtype="float32").reshape(12, 1)
    logs = model.fit(x, x, batch_size=4, shuffle=False, verbose=0).history
    return {name: np.asarray(value).tolist() for name, value in logs.items()}


if __name__ == "__main__":
    several = tf.distribute.MultiWorkerMirroredStrategy()
    found = {kind: trained(kind, several) for kind in OPTIMIZERS}
    found["observed"] = observed(several, Path(sys.argv[1]))
    found["unguarded"] = unguarded(several)
    found["own step"] = own_step(several)
    print(json.dumps(found))
