"""Spectra of recurrent kernels and Jacobians, compared with explicit matrices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from references.reference import VECTORS

from gradkeeper.callbacks.flow import Spectrum, gradient_flow, spectral_report

L = keras.layers


def linear(kernel, time):
    """Return a model of h_t = h_{t-1} W + x_t, whose backward pass multiplies by W transposed."""
    units = len(kernel)
    layer = L.SimpleRNN(units, None, use_bias=False, name="rnn", dtype="float64")
    model = keras.Sequential([keras.Input((time, 1), dtype="float64"), layer])
    layer.set_weights([np.zeros((1, units)), kernel])
    return model


def sent_back(model, gradient):
    """Return the norm of a gradient propagated from the last step to each step, last step first."""
    x = np.zeros((len(gradient), model.input_shape[1], 1))
    flow = gradient_flow(model, x, loss=lambda h: tf.reduce_sum(h * gradient))
    return flow["rnn"].norm[::-1]


@pytest.mark.parametrize("prefix", ["", "half/"])
def test_the_experiment_of_the_book(prefix):
    """Compare with the stored norms of repeated `dh @ Wh.T` for N=2, H=3, T=20."""
    with np.load(VECTORS / "flow.npz") as arrays:
        wh, norms = arrays[f"{prefix}Wh"], arrays[f"{prefix}norms"]
        radius, singular = arrays[f"{prefix}spectral_radius"], arrays[f"{prefix}singular_values"]
    model = linear(wh, len(norms) + 1)
    got = sent_back(model, np.ones((2, 3)))[1:] / 2  # stored norms: divided by batch size
    np.testing.assert_allclose(got, norms, rtol=1e-7)
    spectrum = spectral_report(model)["rnn"].kernels["rnn/recurrent_kernel"]
    assert spectrum.radius == pytest.approx(float(radius), rel=1e-7)
    assert spectrum.norm == pytest.approx(float(singular[0]), rel=1e-7)


def test_growth_per_step_is_the_spectral_radius():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(256, 256)) / 16 * 1.05
    norms = sent_back(linear(kernel, 200), random.normal(size=(1, 256)))
    spectrum = Spectrum.of_matrix(kernel)
    growth = (norms[-1] / norms[100]) ** (1 / (len(norms) - 101))
    assert growth == pytest.approx(spectrum.radius, rel=0.01)
    assert spectrum.norm > 1.8 * spectrum.radius


@pytest.mark.parametrize("size", [20, 150])
def test_products_are_enough(size):
    random = np.random.default_rng(1)
    matrix = random.normal(size=(size, size)) / np.sqrt(size)
    matrix[:, 0] *= 4  # separates one eigenvalue from the others
    matrix[0, 0] += 3
    exact = Spectrum.of_matrix(matrix)
    found = Spectrum.of_products(size, lambda v: matrix @ v, lambda v: matrix.T @ v)
    assert found.radius == pytest.approx(exact.radius, rel=1e-3)
    assert found.norm == pytest.approx(exact.norm, rel=1e-3)


def mean_jacobian(cell, steps, states, count):
    """Return the mean Jacobian over all examples and steps, computed from single gradients."""
    jacobians = []
    for step in steps:
        with tf.GradientTape(persistent=True) as tape:
            flat = tf.concat(states, axis=-1)
            tape.watch(flat)
            _, after = cell(step, tf.split(flat, count, axis=-1))
            whole = tf.concat(after, axis=-1)
        jacobians.append(tape.batch_jacobian(whole, flat, experimental_use_pfor=False))
        states = after
    return tf.reduce_mean(tf.concat(jacobians, axis=0), axis=0).numpy(), jacobians


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "count"), [(L.LSTM, 2), (L.GRU, 1), (L.SimpleRNN, 1)])
def test_the_mean_jacobian_and_lyapunov_exponents(layer, count):
    keras.utils.set_random_seed(0)
    options = {"dtype": "float64"}
    model = keras.Sequential([keras.Input((5, 3), **options), layer(3, name="rnn", **options)])
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    found = spectral_report(model, x)["rnn"]
    cell = model.layers[0].cell
    initial = cell.get_initial_state(2)
    mean, jacobians = mean_jacobian(cell, tf.unstack(x, axis=1), initial, count)
    exact = Spectrum.of_matrix(mean)
    assert found.jacobian.radius == pytest.approx(exact.radius, rel=1e-4)
    assert found.jacobian.norm == pytest.approx(exact.norm, rel=1e-4)
    # The sum of all exponents is the growth rate of a volume.
    all_of_them = spectral_report(model, x[:1], exponents=3 * count)["rnn"].lyapunov
    volume = np.mean([np.linalg.slogdet(jacobian[0].numpy())[1] for jacobian in jacobians])
    assert all_of_them.sum() == pytest.approx(volume, rel=1e-6)
    assert len(found.kernels) == {L.LSTM: 4, L.GRU: 3, L.SimpleRNN: 1}[layer]


@pytest.mark.slow
def test_lyapunov_exponent_of_a_linear_network():
    """Compare two lengths, so that the growth of the first steps, in random directions, cancels."""
    growth = []
    for time in (30, 60):
        report = spectral_report(linear(np.diag([0.5, 1.2, 0.9]), time), np.zeros((1, time, 1)))
        growth.append(time * report["rnn"].lyapunov)
    np.testing.assert_allclose((growth[1] - growth[0]) / 30, np.log([1.2, 0.9, 0.5]), atol=1e-4)
    assert report["rnn"].jacobian.radius == pytest.approx(1.2)
    assert "grows, times 1.2 per step" in str(report)


@pytest.mark.slow
def test_masked_steps_do_not_count():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 2)), L.Masking(), L.GRU(3, name="rnn")])
    x = np.random.default_rng(0).normal(size=(1, 6, 2)).astype("float32")
    padded = np.concatenate([x[:, :4], np.zeros_like(x[:, 4:])], axis=1)
    alone, masked = (spectral_report(model, each)["rnn"] for each in (x[:, :4], padded))
    np.testing.assert_allclose(masked.lyapunov, alone.lyapunov, rtol=1e-4)
    assert masked.jacobian.radius == pytest.approx(alone.jacobian.radius, rel=1e-4)


def test_predictions():
    assert Spectrum(0.3, 0.9).prediction.startswith("vanishes")
    assert Spectrum(0.9, 1.5).prediction.startswith("fades")
    assert Spectrum(1.1, 1.5).prediction.startswith("grows")


def test_without_recurrent_layer_or_numbers():
    dense = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    with pytest.raises(ValueError, match="no recurrent layer"):
        spectral_report(dense)
    with pytest.raises(ValueError, match="not finite"):
        spectral_report(linear(np.full((2, 2), np.nan), 3))
