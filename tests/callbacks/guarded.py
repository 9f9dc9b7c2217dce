"""A model with all kinds of state, with data of which some batches are not finite."""

from typing import Any

import keras
import numpy as np
from models import of_backend

from gradkeeper.callbacks.non_finite_guard import NonFiniteGuard

BATCH = 8
WAYS: dict[str, dict[str, Any]] = {
    "graph": {"jit_compile": False},
    "xla": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "several steps": {"jit_compile": False, "steps_per_execution": 4},
    "xla and several steps": {"jit_compile": True, "steps_per_execution": 4},
}


def built(optimizer: Any = "adam", dtype: str | None = None, **options: Any) -> keras.Model:
    """Return a model with all kinds of state: weights, moving averages, seeds and metrics."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(5, "tanh", dtype=dtype),
        keras.layers.BatchNormalization(dtype=dtype),
        keras.layers.Dropout(0.3, seed=5, dtype=dtype),
        keras.layers.Dense(1, dtype=dtype),
    ]
    model = keras.Sequential(layers)
    model.compile(
        optimizer,
        "mse",
        metrics=[keras.metrics.MeanAbsoluteError(name="mae")],
        **of_backend(options),
    )
    return model


def data(batches: int = 8, without: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(batches, BATCH, 6)).astype("float32")
    y = random.normal(size=(batches, BATCH, 1)).astype("float32")
    kept = [batch for batch in range(batches) if batch not in without]
    return x[kept].reshape(-1, 6), y[kept].reshape(-1, 1)


def poisoned(*batches: int, row: int = 0, value: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
    x, y = data()
    for batch in batches:
        x[batch * BATCH + row, 2] = value
    return x, y


def fit(model: keras.Model, xy: Any, *callbacks: Any, **options: Any) -> keras.callbacks.History:
    options = {"shuffle": False, "verbose": 0, "callbacks": list(callbacks), **options}
    if keras.backend.backend() != "tensorflow":
        return model.fit(*xy, batch_size=BATCH, **options)
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(tuple(xy)).batch(BATCH)
    # Autotuning of tf.data blocks for up to a minute where a training ends within an epoch.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    return model.fit(batches.with_options(untuned), **options)


def state(model: keras.Model) -> list[np.ndarray]:
    variables = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
    return [keras.ops.convert_to_numpy(each) for each in variables.values()]


def assert_alike(one: keras.Model, other: keras.Model) -> None:
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


def quiet(policy: Any = "skip", **options: Any) -> NonFiniteGuard:
    return NonFiniteGuard(policy, verbose=0, **options)
