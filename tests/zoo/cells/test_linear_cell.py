"""Layers that compute all states in parallel, compared with their loop."""

import keras
import numpy as np
import pytest
from autodiff import outputs_and_gradients

from gradkeeper.zoo import layers

NAMES = ["LRU", "MinGRU", "MinLSTM", "RGLRU"]


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_loop_forward_and_backward(name):
    keras.utils.set_random_seed(0)
    scan = getattr(layers, name)(8, return_sequences=True, dtype="float64")
    loop = keras.layers.RNN(scan.cell, return_sequences=True, dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 19, 3))  # `test_scan.py` has longer sequences
    weighing = keras.ops.convert_to_tensor(np.random.default_rng(1).normal(size=(2, 19, 8)))
    scan.build(x.shape)
    loop.build(x.shape)
    (parallel, *one), (sequential, *other) = (
        outputs_and_gradients(lambda t, layer=layer: weighed(layer(t[0]), weighing), layer, [x])
        for layer in (scan, loop)
    )
    np.testing.assert_allclose(parallel[0], sequential[0], atol=1e-9)
    for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def weighed(outputs, weighing):
    return keras.ops.sum(outputs * weighing), [outputs]


@pytest.mark.parametrize(
    ("dtype", "rounding"), [("float32", 0), ("mixed_float16", 2**-11), ("mixed_bfloat16", 2**-8)]
)
@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_long_sequences_equal_logarithms_in_float64(name, dtype, rounding):
    """Compare with the log-space form of arXiv 2410.01201, appendix B, computed in a loop."""
    keras.utils.set_random_seed(0)
    layer = getattr(layers, name)(4, return_sequences=True, dtype=dtype)
    x = keras.ops.cast(np.random.default_rng(0).normal(size=(2, 2048, 3)), layer.compute_dtype)
    outputs = array(keras.ops.cast(layer(x), "float32"))
    kernel = keras.ops.cast(layer.cell.kernel, x.dtype)
    projected = array(keras.ops.cast(keras.ops.matmul(x, kernel), "float32")).astype("float64")
    *gates, n = np.split(projected, layer.cell.gates, axis=-1)
    logit = gates[0] if name == "MinGRU" else softplus(-gates[0]) - softplus(-gates[1])
    log_a, log_b = (
        -softplus(logit),
        -softplus(-logit) + np.log(np.where(n >= 0, n + 0.5, sigmoid(n))),
    )
    log_h = np.full((2, 4), -np.inf)
    for step in range(2048):
        log_h = np.logaddexp(log_a[:, step] + log_h, log_b[:, step])
        np.testing.assert_allclose(outputs[:, step], np.exp(log_h), rtol=rounding, atol=1e-5)


def softplus(value):
    return np.logaddexp(0, value)


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_states_are_positive_in_log_space_only(name):
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    assert array(getattr(layers, name)(4, seed=0)(x)).min() > 0
    assert array(getattr(layers, name)(4, seed=0, log_space=False)(x)).min() < 0


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_steps_stay_finite(name):
    keras.utils.set_random_seed(0)
    layer = getattr(layers, name)(4, return_sequences=True)
    x = 30 * np.random.default_rng(0).normal(size=(1, 3000, 2)).astype("float32")
    layer.build(x.shape)
    found = outputs_and_gradients(lambda t: weighed(layer(t[0]), 1 / 3000), layer, [x])
    for each in [*found[0], *found[1], *found[2]]:
        assert np.isfinite(each).all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_masked_sequence_keeps_its_initial_state(name):
    layer = getattr(layers, name)(4, return_state=True)
    initial = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    x, mask = np.ones((2, 9, 3), "float32"), np.zeros((2, 9), bool)
    _, state = layer(x, initial_state=[keras.ops.convert_to_tensor(initial)], mask=mask)
    np.testing.assert_array_equal(array(state), initial)


def test_lru_starts_in_its_ring():
    layer = layers.LRU(500, radius_range=(0.5, 0.8), max_phase=1.0)
    layer.build((None, None, 3))
    nu, theta = np.split(array(layer.cell.eigenvalues), 2)
    radius = np.exp(-np.exp(nu))
    assert radius.min() > 0.5
    assert radius.max() < 0.8
    assert np.mean(radius**2) == pytest.approx((0.25 + 0.64) / 2, abs=0.02)
    assert np.exp(theta).max() <= 1.0
    np.testing.assert_allclose(np.exp(array(layer.cell.gain)) ** 2, 1 - radius**2, rtol=1e-3)


def test_rg_lru_starts_with_its_decay():
    layer = layers.RGLRU(500, decay_range=(0.3, 0.6))
    layer.build((None, None, 3))
    a = (1 / (1 + np.exp(-array(layer.cell.decay)))) ** 8
    assert a.min() > 0.299
    assert a.max() < 0.601
    with pytest.raises(ValueError, match=r"`decay_range` must be two numbers between 0 and 1"):
        layers.RGLRU(3, decay_range=(0.5, 1.5))


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_rg_lru_has_gradients_where_its_gate_is_shut(dtype):
    layer = layers.RGLRU(4, return_sequences=True, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
    layer.build(x.shape)
    layer.cell.bias.assign(np.repeat([-1000.0, 0.0, 0.0], 4))
    found = outputs_and_gradients(lambda t: weighed(layer(t[0]), 1), layer, [x])
    for each in [*found[0], *found[1], *found[2]]:
        assert np.isfinite(each.astype("float32")).all()
