"""The guard with replicas in several processes (`MultiWorkerMirroredStrategy`)."""

import pytest
from worker_processes import run_workers

SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
from gradkeeper.callbacks.guard.checks import SkipOptions
from gradkeeper.callbacks.guard.transform import SkipTransform
from gradkeeper.callbacks.instrument.step_patches import StepPatches

worker = strategy.cluster_resolver.task_id
keras.utils.set_random_seed(0)
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
x = np.random.default_rng(worker).normal(size=(6, 8, 3)).astype("float32")
if worker == 1:
    x[3, 2, 1] = np.nan
else:
    x[5, 0, 0] = np.inf

def replica_step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True))) / 2
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)

@tf.function
def step(x):
    strategy.run(replica_step, args=(x,))

options = SkipOptions(refuses=True, halts_after=0, checks_loss=False, trigger=None)
transform = SkipTransform(options, model)
with StepPatches([transform], [optimizer]).applied():
    for batch in x:
        step(tf.constant(batch))
events, *_ = transform.drain()
print(json.dumps({
    "steps": [event.step for event in events],
    "replicas": [event.replicas for event in events],
    "texts": [str(event) for event in events],
    "iterations": int(optimizer.iterations.numpy()),
    "weights": [weight.tolist() for weight in model.get_weights()],
}))
"""


@pytest.mark.slow
def test_all_workers_refuse_the_step_that_is_bad_on_one():
    first, second = run_workers("-c", SCRIPT)
    assert first["steps"] == second["steps"] == [3, 5]
    assert first["iterations"] == second["iterations"] == 4
    assert first["weights"] == second["weights"]
    assert "nan" not in str(first["weights"]).lower()
    assert (first["replicas"], second["replicas"]) == ([[], [0]], [[1], []])
    assert "on another worker" in first["texts"][0]
    assert "non-finite gradients in dense" in second["texts"][0]
