"""`make_optimizer`: three kinds of clipping compared with NumPy, schedules and errors."""

import math

import keras
import numpy as np
import pytest

from gradkeeper.training import make_optimizer
from gradkeeper.training.optimizers import OPTIMIZERS

GRADIENTS = (np.array([3.0, -4.0], "float32"), np.array([0.5, 0.1, -12.0], "float32"))


def clip_each_variable(gradients):
    return [g * min(1.0, 2.0 / np.linalg.norm(g)) for g in gradients]


def clip_all_together(gradients):
    norm = math.sqrt(sum(float((g.astype("float64") ** 2).sum()) for g in gradients))
    return [g * min(1.0, 2.0 / norm) for g in gradients]


def clip_each_element(gradients):
    return [np.clip(g, -2.0, 2.0) for g in gradients]


def update(optimizer, gradients):
    """Return the amount that one step subtracts from variables that start at zero."""
    variables = [keras.Variable(np.zeros_like(g)) for g in gradients]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    return [-variable.numpy() for variable in variables]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("clipnorm", clip_each_variable),
        ("global_clipnorm", clip_all_together),
        ("clipvalue", clip_each_element),
    ],
)
@pytest.mark.parametrize("size", [1.0, 1e-3], ids=["above the limit", "below the limit"])
def test_clipping_equals_numpy(clip, expected, size):
    gradients = [size * g for g in GRADIENTS]
    steps = update(make_optimizer("sgd", 1.0, **{clip: 2.0}), gradients)
    for step, wanted in zip(steps, expected(gradients), strict=True):
        np.testing.assert_allclose(step, wanted, rtol=1e-6)


def test_step_without_clipping():
    for step, gradient in zip(
        update(make_optimizer("sgd", 1.0), GRADIENTS), GRADIENTS, strict=True
    ):
        np.testing.assert_array_equal(step, gradient)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_and_its_config(name):
    optimizer = make_optimizer(name, 0.01, global_clipnorm=1.0)
    steps = update(optimizer, GRADIENTS)
    assert all(np.isfinite(step).all() and np.any(step != 0) for step in steps)
    twin = type(optimizer).from_config(optimizer.get_config())
    assert twin.global_clipnorm == 1.0


def test_options_of_the_optimizer():
    optimizer = make_optimizer("sgd", 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    config = optimizer.get_config()
    assert (config["momentum"], config["nesterov"], config["weight_decay"]) == (0.9, True, 0.01)


def test_default_weight_decay():
    assert make_optimizer("adamw", 0.1).weight_decay == 0.004
    assert make_optimizer("adamw", 0.1, weight_decay=0).weight_decay == 0
    assert make_optimizer("adam", 0.1).weight_decay is None


def test_two_kinds_of_clipping_are_refused():
    with pytest.raises(ValueError, match=r"one kind.*Received: clipnorm=1\.0, clipvalue=0\.5"):
        make_optimizer("sgd", 0.1, clipnorm=1.0, clipvalue=0.5)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
@pytest.mark.parametrize("value", [-1.0, 0, math.inf, math.nan, "1", True])
def test_invalid_limit_is_refused(clip, value):
    with pytest.raises(ValueError, match=f"`{clip}` must be a finite number above 0. Received"):
        make_optimizer("sgd", 0.1, **{clip: value})


@pytest.mark.parametrize("learning_rate", [None, 0.0, -0.1, math.nan, math.inf, "0.1"])
def test_invalid_learning_rate_is_refused(learning_rate):
    with pytest.raises(ValueError, match="`learning_rate` must be a finite number above 0"):
        make_optimizer("sgd", learning_rate)


def test_negative_weight_decay_is_refused():
    with pytest.raises(ValueError, match=r"`weight_decay`.*Received: weight_decay=-0\.1"):
        make_optimizer("sgd", 0.1, weight_decay=-0.1)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match=r"Did you mean 'rmsprop'\?.*adadelta.*'rmsprob'"):
        make_optimizer("rmsprob", 0.1)


def test_unknown_options():
    with pytest.raises(TypeError, match=r"takes the arguments .*beta_1.*Received: momentum, tempo"):
        make_optimizer("adam", 0.1, momentum=0.9, tempo=1)
