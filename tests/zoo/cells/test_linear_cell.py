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


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM"])
def test_logarithms_equal_plain_numbers(name):
    """Use an activation that makes the candidate positive, so that both forms are equal."""
    keras.utils.set_random_seed(0)
    options = {"return_sequences": True, "dtype": "float64"}
    logs = getattr(layers, name)(4, **options)
    plain = getattr(layers, name)(4, log_space=False, activation=positive, **options)
    x = np.random.default_rng(0).normal(size=(2, 40, 3))
    logs.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(logs.get_weights())
    np.testing.assert_allclose(array(logs(x)), array(plain(x)), rtol=1e-8)


def positive(value):
    return keras.ops.where(value >= 0, value + 0.5, keras.ops.sigmoid(value))


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_steps_stay_finite(name):
    keras.utils.set_random_seed(0)
    layer = getattr(layers, name)(4, return_sequences=True)
    x = 30 * np.random.default_rng(0).normal(size=(1, 3000, 2)).astype("float32")
    layer.build(x.shape)
    found = outputs_and_gradients(lambda t: weighed(layer(t[0]), 1 / 3000), layer, [x])
    for each in [*found[0], *found[1], *found[2]]:
        assert np.isfinite(each).all()


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
