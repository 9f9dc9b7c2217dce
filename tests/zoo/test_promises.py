"""Promises of the papers that follow from the equations, without training."""

import keras
import numpy as np
import pytest
from keras import ops

from gradkeeper import zoo
from gradkeeper.zoo import layers
from gradkeeper.zoo.initializers import Chrono

RANDOM = np.random.default_rng(0)


def last_state(layer, state, steps):
    """Return the state after steps without input, with all weights scaled to be large."""
    layer.build((None, None, 1))
    for weight in layer.weights:
        weight.assign(3 * RANDOM.normal(size=weight.shape))
    inputs = np.zeros((1, steps, 1), "float32")
    return ops.convert_to_numpy(layer(inputs, initial_state=state))


def test_the_state_of_a_chaos_free_network_decays_without_inputs():
    """Laurent, von Brecht 2016, section 2; the state of a simple network does not decay."""
    state = RANDOM.normal(size=(1, 6)).astype("float32")
    bound = np.abs(state).max()
    for _ in range(50):
        bound = np.tanh(bound)  # its limit is 0; after 50 steps it is 0.17
    assert np.abs(last_state(layers.CFN(6), [state], 50)).max() <= bound
    assert np.abs(last_state(keras.layers.SimpleRNN(6), [state], 50)).max() > 0.5


def test_a_step_of_unicornn_can_be_inverted():
    """Rusch, Mishra 2021, section 2.2."""
    cell = layers.UnICORNN(5, step_size=0.3, alpha=2.0).cell
    x, h, c = (RANDOM.normal(size=(3, 5)).astype("float32") for _ in range(3))
    _, (later_h, later_c) = cell(x, [h, c])
    d = cell.step_size * ops.sigmoid(cell.step_kernel)
    earlier_h = later_h - d * later_c
    force = ops.tanh(cell.project(x) + cell.recurrent_kernel * earlier_h)
    earlier_c = later_c + d * (force + cell.alpha * earlier_h)
    np.testing.assert_allclose(earlier_h, h, atol=1e-5)
    np.testing.assert_allclose(earlier_c, c, atol=1e-5)


@pytest.mark.parametrize("angle_scale", [1.0, 0.1])
def test_an_orthogonal_network_keeps_the_norm_for_all_weights(angle_scale):
    """Lezcano-Casado, Martinez-Rubio 2019, section 2."""
    cell = layers.OrthogonalRNN(16, angle_scale=angle_scale).cell
    cell.build((None, 1))
    cell.recurrent_kernel.assign(2 * RANDOM.normal(size=(16, 16)) / angle_scale / 4)
    h = RANDOM.normal(size=(4, 16)).astype("float32")
    turned = ops.matmul(h, cell.compute_kernel())
    norms = [np.linalg.norm(ops.convert_to_numpy(each), axis=-1) for each in (h, turned)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_one_linear_layer_of_an_lru_cannot_add():
    """Its output is affine in the inputs, and no affine function has a smaller error.

    Its error on the adding problem is 1/6 - 1/(3 T), where guessing has 1/6.
    """
    sizes = {"input_shape": (20, 2), "output_units": 1, "units": 4}
    model = zoo.create_model("lru", **sizes)
    one, other = RANDOM.normal(size=(2, 1, 20, 2)).astype("float32")
    at_one, at_other, at_sum, at_zero = (
        ops.convert_to_numpy(model(x)) for x in (one, other, one + other, 0 * one)
    )
    np.testing.assert_allclose(at_sum, at_one + at_other - at_zero, atol=1e-5)

    steps, examples = 20, 40_000
    numbers = RANDOM.random((examples, steps))
    first = RANDOM.integers(0, steps // 2, examples)
    second = RANDOM.integers(steps // 2, steps, examples)
    rows = np.arange(examples)
    markers = np.zeros((examples, steps))
    markers[rows, first] = markers[rows, second] = 1
    target = numbers[rows, first] + numbers[rows, second]
    inputs = np.concatenate([numbers, markers, np.ones((examples, 1))], axis=1)
    weights, *_ = np.linalg.lstsq(inputs, target, rcond=None)
    error = np.mean((inputs @ weights - target) ** 2)
    assert error == pytest.approx(1 / 6 - 1 / (3 * steps), rel=0.02)


def test_chrono_units_remember_for_at_most_the_given_number_of_steps():
    """Tallec, Ollivier 2018, section 2: the time constant of sigmoid(log u) is 1 + u."""
    _, forget, _, _ = np.split(ops.convert_to_numpy(Chrono(500, seed=1)((4 * 4000,), "float32")), 4)
    times = 1 / (1 - 1 / (1 + np.exp(-forget.astype("float64"))))
    assert times.min() >= 2
    assert times.max() <= 500
    assert np.mean(times) == pytest.approx(251, rel=0.05)
