"""Discretized differential equations: eigenvalues that do not grow, and bounded states."""

import keras
import numpy as np
import pytest

from gradkeeper.zoo import layers

X = 20 * np.random.default_rng(0).normal(size=(2, 3000, 3))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def predict(layer, inputs, dtype="float32"):
    """Run the layer as a compiled model, which is faster than eager execution."""
    sequence = keras.Input((None, inputs.shape[-1]), dtype=dtype)
    return keras.Model(sequence, layer(sequence)).predict_on_batch(inputs.astype(dtype))


def with_large_weights(layer, seed=0):
    """Set the weights to three times their usual size."""
    layer.build((None, None, 3))
    random = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(3 * random.normal(size=weight.shape) / np.sqrt(weight.shape[0]))
    return layer


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("name", "limit"), [("CoRNN", (5 + 2 * 64) ** -0.5), ("LEM", 64**-0.5)])
def test_all_weights_start_uniform_and_independent(name, limit, seed):
    layer = getattr(layers, name)(64, seed=seed)
    layer.build((None, None, 5))
    starts = [array(weight).ravel() for weight in layer.weights]
    assert len(starts) == 4
    for start in starts:
        assert np.abs(start).max() <= limit
        assert start.std() == pytest.approx(limit / np.sqrt(3), rel=0.15)
    assert len({start[0] for start in starts}) == 4
    changed = type(layer)(64, bias_initializer="zeros", recurrent_initializer="identity")
    changed.build((None, None, 64))
    assert not array(changed.cell.bias).any()
    assert np.abs(array(changed.cell.kernel)).max() <= limit


def test_lipschitz_rnn_starts_near_zero():
    layer = layers.LipschitzRNN(64, seed=1)
    layer.build((None, None, 5))
    assert array(layer.cell.recurrent_kernel).std() == pytest.approx(0.1 / 64, rel=0.05)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("diffusion", [0.0, 0.1])
@pytest.mark.parametrize("name", ["AntisymmetricRNN", "GatedAntisymmetricRNN"])
def test_antisymmetric_eigenvalues_do_not_grow(name, diffusion):
    layer = getattr(layers, name)(20, diffusion=diffusion, dtype="float64")
    values = np.linalg.eigvals(array(with_large_weights(layer).cell.compute_kernel()))
    np.testing.assert_allclose(values.real, -diffusion, atol=1e-12)
    assert np.abs(values.imag).max() > 1


def test_lem_stays_between_minus_one_and_one():
    layer = layers.LEM(6, return_sequences=True, return_state=True, step_size=1.0)
    outputs, _, cell = predict(with_large_weights(layer), X)
    assert np.abs(outputs).max() <= 1
    assert np.abs(cell).max() <= 1
    assert np.abs(outputs).max() > 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("implicit", [False, True])
def test_the_energy_of_co_rnn_grows_by_no_more_than_its_steps(implicit):
    """Start from rest, with the damping condition met: gamma h^2 + c^2 <= dt * steps, by unit."""
    dt, gamma, epsilon = 0.02, 1.0, 0.6
    assert 2 * epsilon >= 1 + dt * (gamma + epsilon**2)
    layer = layers.CoRNN(
        6,
        step_size=dt,
        frequency=gamma,
        damping=epsilon,
        implicit_damping=implicit,
        dtype="float64",
        return_state=True,
    )
    with_large_weights(layer)
    for steps in (10, 100, 1000, 3000):
        _, h, c = predict(layer, X[:, :steps], "float64")
        energy = gamma * h**2 + c**2
        assert energy.max() <= dt * steps
    assert energy.max() > 1e-3


def test_unicornn_stays_finite_over_thousands_of_steps():
    outputs = predict(with_large_weights(layers.UnICORNN(6, return_sequences=True)), X)
    assert np.isfinite(outputs).all()
    assert np.abs(outputs).max() < 100


@pytest.mark.usefixtures("float64")
def test_lipschitz_rnn_mixes_a_symmetric_and_a_skew_part():
    """Use beta = 1 and gamma = 0: the matrix is skew, so the linear part does not grow."""
    layer = layers.LipschitzRNN(10, antisymmetry=1.0, diffusion=0.0, dtype="float64")
    made = array(with_large_weights(layer).cell.compute_kernel())
    first = made[:, :10]
    np.testing.assert_allclose(first, -first.T, atol=1e-12)
