"""Half precision that overflows, and replicas with bad data."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from keras import optimizers as opt

from injection import data, models
from injection.faults import (
    REPLICAS,
    CustomStep,
    scaled_policy,
    strategy,
    unguarded_crossentropy,
)
from injection.healthy import CLASSES
from injection.run import BATCH, Run, Training


def faulty_devices() -> list[Run]:
    """Return runs in which loss scaling skips every step, or one replica is bad."""
    return [*_half_precision(), *_replicas()]


def _half_precision() -> list[Run]:
    after = frozenset({"nonfinite"})
    unscaled = frozenset({"update_ratio", "vanishing"})
    return [
        Run("NaN loss in float16", _nan_loss, "loss_scale_stuck", after, at=0),
        Run("inputs overflow float16 from a step on", _overflow, "loss_scale_stuck", after, at=50),
        Run(
            "custom step without scale_loss",
            _not_scaled,
            "loss_not_scaled",
            unscaled,
            at=0,
            on_jax=False,
        ),
    ]


def _replicas() -> list[Run]:
    after = frozenset({"exploding", "spike", "nonfinite", "update_ratio", "dead", "vanishing"})
    rule, nan = "replica_disagreement", frozenset({"nonfinite"})
    runs = [
        Run("replica with NaN in one batch", _nan_on_one, rule, nan, at=44),
        Run("replica with data 1000 times too large", _large_on_one, rule, after, at=40),
        Run("replica without a signal", _silent_on_one, rule, at=0),
    ]
    return [replace(run, on_jax=False) for run in runs]


def _nan_loss(random: np.random.Generator) -> Training:
    x, y = data.classes(random, 60)
    return _in_float16((1e4 * x, y), unguarded_crossentropy)


def _overflow(random: np.random.Generator) -> Training:
    x, y = data.classes(random, 120)
    x[50 * BATCH :] *= 1e6
    return _in_float16((x, y), CLASSES)


def _not_scaled(random: np.random.Generator) -> Training:
    with scaled_policy():
        mlp = models.mlp(4)
        model = CustomStep(mlp.inputs, mlp.outputs)
    optimizer = opt.LossScaleOptimizer(opt.SGD(0.05))
    return Training(model, optimizer, CLASSES, data.classes(random, 60))


def _in_float16(examples: data.Data, loss: Callable) -> Training:
    with scaled_policy():
        model = models.mlp(4)
    return Training(model, opt.LossScaleOptimizer(opt.Adam(1e-3)), loss, examples)


def _nan_on_one(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 80)
    _of_last_replica(x)[44, 3] = np.nan
    return _replicated((x, y))


def _large_on_one(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 80)
    _of_last_replica(x)[40:] *= 1000.0
    return _replicated((x, y))


def _silent_on_one(random: np.random.Generator) -> Training:
    x, y = data.regression(random, 80)
    _of_last_replica(x)[:] *= 1e-3
    _of_last_replica(y)[:] *= 1e-3
    return _replicated((x, y))


def _replicated(examples: data.Data) -> Training:
    with strategy().scope():
        model, optimizer = models.mlp(), opt.SGD(0.05)
    return Training(model, optimizer, "mse", examples, strategy=strategy())


def _of_last_replica(array: np.ndarray) -> np.ndarray:
    """Return a view of the last replica's part of each batch, [steps, part, ...]."""
    part = BATCH // REPLICAS
    return array.reshape(-1, REPLICAS, part, *array.shape[1:])[:, -1]
