"""Stabilised recurrences: orthogonal matrices, bounds, zoneout, highways and exponential gates."""

import functools

import keras
import numpy as np
import pytest
from autodiff import gradients

from gradkeeper.zoo import layers
from gradkeeper.zoo.cells.ind_rnn import MaxMagnitude


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def train(layer, rate):
    """Train the layer for three steps, with an optimizer whose steps are as large as its rate."""
    model = keras.Sequential([keras.Input((4, 3)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), "mse")
    x = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    for _ in range(3):
        model.train_on_batch(x, x[:, 0, :1])


@pytest.mark.eager
def test_orthogonal_matrix_stays_orthogonal_in_training():
    layer = layers.OrthogonalRNN(64)
    layer.build((None, None, 3))
    before = array(layer.cell.compute_kernel())
    train(layer, rate=0.1)
    after = array(layer.cell.compute_kernel())
    assert np.abs(after - before).max() > 0.1
    assert np.abs(after @ after.T - np.eye(64)).max() < 1e-5


@pytest.mark.usefixtures("float64")
def test_orthogonal_gradient_keeps_its_length_over_many_linear_steps():
    keras.utils.set_random_seed(0)
    layer = layers.OrthogonalRNN(32, bias_initializer="zeros", dtype="float64")
    x, state = np.zeros((2, 40, 3)), np.random.default_rng(0).normal(size=(2, 32))
    layer.build(x.shape)
    weighing = keras.ops.convert_to_tensor(np.random.default_rng(1).normal(size=(2, 32)))

    def loss(tensors):
        return keras.ops.sum(layer(tensors[0], initial_state=[tensors[1]]) * weighing)

    (_, gradient), _ = gradients(loss, layer, [x, state])
    growth = np.linalg.norm(gradient) / np.linalg.norm(array(weighing))
    assert growth == pytest.approx(1.0, abs=1e-9)


@pytest.mark.eager
def test_the_angle_scale_slows_the_matrix_only():
    layer, slow = (layers.OrthogonalRNN(8, seed=1, angle_scale=scale) for scale in (1.0, 0.1))
    for each in (layer, slow):
        each.build((None, None, 3))
    slow.cell.kernel.assign(layer.cell.kernel)
    slow.cell.bias.assign(layer.cell.bias)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    angles = array(layer.cell.recurrent_kernel)
    close(0.1 * array(slow.cell.recurrent_kernel), angles)
    close(array(slow.cell.compute_kernel()), array(layer.cell.compute_kernel()))
    train(slow, rate=1e-3)
    moved = np.abs(0.1 * array(slow.cell.recurrent_kernel) - angles)
    assert 2e-4 < moved.max() <= 3.01e-4


def test_orthogonal_rnn_starts_as_the_authors_code():
    layer = layers.OrthogonalRNN(500)
    layer.build((None, None, 8))
    assert array(layer.cell.kernel).std() == pytest.approx(np.sqrt(2 / 8), rel=0.05)
    bias = array(layer.cell.bias)
    assert bias.min() == pytest.approx(-0.01, abs=1e-3)
    assert bias.max() == pytest.approx(0.01, abs=1e-3)
    with pytest.raises(ValueError, match=r"`angle_scale` must be .* Received: angle_scale=0"):
        layers.OrthogonalRNN(3, angle_scale=0)


def test_fast_cells_start_with_the_given_scalars():
    steps = 100
    layer = layers.FastRNN(2, alpha=-np.log(steps), beta=np.log(steps), activation="linear")
    layer.build((None, None, 3))
    layer.cell.recurrent_kernel.assign(np.zeros((2, 2)))
    last = array(layer(np.zeros((1, steps, 3), "float32"), initial_state=[np.ones((1, 2))]))
    np.testing.assert_allclose(last, (steps / (steps + 1)) ** steps, rtol=1e-4)
    gated = layers.FastGRNN(2, zeta=0.5, nu=-2.0)
    gated.build((None, None, 3))
    weights = {each.name: array(each) for each in [*layer.weights, *gated.weights]}
    assert (weights["zeta"], weights["nu"]) == (0.5, -2.0)
    assert weights["alpha"] == pytest.approx(-np.log(steps))
    with pytest.raises(ValueError, match="Received: alpha=None"):
        layers.FastRNN(2, alpha=None)


def test_orthogonal_rnn_with_modrelu_refuses_an_activation():
    with pytest.raises(ValueError, match=r"Set `mod_relu=False`.*activation='relu'"):
        layers.OrthogonalRNN(4, activation="relu")


def test_orthogonal_rnn_without_modrelu_applies_the_activation():
    layer = layers.OrthogonalRNN(4, mod_relu=False, activation="tanh")
    assert np.abs(array(layer(10 * np.ones((1, 3, 2), "float32")))).max() <= 1


@pytest.mark.eager
@pytest.mark.parametrize(("length", "limit"), [(None, 1.0), (10, 2**0.1)])
def test_ind_rnn_constraint_enforces_the_bound(length, limit):
    layer = layers.IndRNN(16, sequence_length=length)
    layer.build((None, None, 3))
    layer.cell.recurrent_kernel.assign(np.full(16, 3.0))
    train(layer, rate=1e-6)
    np.testing.assert_allclose(array(layer.cell.recurrent_kernel), limit, rtol=1e-5)
    again = layers.IndRNN.from_config(layer.get_config())
    assert again.cell.recurrent_constraint.limit == pytest.approx(limit)


def test_ind_rnn_refuses_bounds_that_are_not_positive():
    with pytest.raises(ValueError, match="`limit` must be a finite number above 0"):
        MaxMagnitude(0)
    with pytest.raises(ValueError, match="`sequence_length` must be an integer"):
        layers.IndRNN(3, sequence_length=0)


@pytest.mark.parametrize("name", ["ZoneoutLSTM", "ZoneoutGRU"])
def test_zoneout_of_1_is_the_identity(name):
    options = {"zoneout": 1.0, **({"cell_zoneout": 1.0} if "LSTM" in name else {})}
    layer = getattr(layers, name)(4, return_state=True, **options)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    count = layer.cell.state_count
    states = list(np.random.default_rng(1).normal(size=(count, 2, 4)).astype("float32"))
    for training in (False, True):
        output, *final = layer(x, initial_state=states, training=training)
        np.testing.assert_array_equal(array(output), states[0])
        for one, other in zip(final, states, strict=True):
            np.testing.assert_array_equal(array(one), other)


@pytest.mark.parametrize("name", ["ZoneoutLSTM", "ZoneoutGRU"])
def test_zoneout_is_random_in_training_and_the_mean_at_inference(name):
    layer = getattr(layers, name)(3, zoneout=0.3, seed=1)
    x = np.random.default_rng(0).normal(size=(1, 1, 2)).astype("float32")
    many = np.repeat(x, 4000, axis=0)
    states = [np.full((4000, 3), 0.5, "float32")] * layer.cell.state_count
    drawn = array(layer(many, initial_state=states, training=True))
    kept = drawn == 0.5
    assert kept.mean() == pytest.approx(0.3, abs=0.02)
    expected = array(layer(x, initial_state=[state[:1] for state in states]))
    np.testing.assert_allclose(drawn.mean(axis=0), expected[0], atol=0.02)
    again = array(layer(many, initial_state=states, training=True))
    assert (again != drawn).any()


def test_zoneout_differs_from_step_to_step():
    layer = layers.ZoneoutGRU(50, zoneout=0.5, return_sequences=True, seed=1)
    x = np.random.default_rng(0).normal(size=(1, 6, 2)).astype("float32")
    outputs = array(layer(x, training=True))[0]
    kept = outputs[1:] == outputs[:-1]
    assert 0.3 < kept.mean() < 0.7
    assert not (kept[0] == kept[1]).all()


@pytest.mark.parametrize(
    ("shared", "cell_rate", "both"),
    [
        (True, 0.3, 0.3),
        (True, 0.6, 0.3),
        (False, 0.3, 0.09),
    ],
)
def test_zoneout_lstm_keeps_both_states_together_with_a_shared_mask(shared, cell_rate, both):
    layer = layers.ZoneoutLSTM(
        3, zoneout=0.3, cell_zoneout=cell_rate, shared_mask=shared, return_state=True, seed=1
    )
    states = [np.full((4000, 3), 0.5, "float32")] * 2
    x = np.ones((4000, 1, 2), "float32")
    kept_h, kept_c = (array(each) == 0.5 for each in layer(x, states, training=True)[1:])
    assert kept_h.mean() == pytest.approx(0.3, abs=0.02)
    assert kept_c.mean() == pytest.approx(cell_rate, abs=0.02)
    assert (kept_h & kept_c).mean() == pytest.approx(both, abs=0.02)


def test_zoneout_lstm_with_rate_0_equals_keras_lstm():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    ours = layers.ZoneoutLSTM(4, zoneout=0.0, cell_zoneout=0.0)
    theirs = keras.layers.LSTM(4)
    ours.build(x.shape)
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(array(ours(x)), array(theirs(x)), atol=1e-6)


def test_rhn_transform_bias_starts_negative():
    layer = layers.RHN(4, recurrence_depth=3)
    layer.build((None, None, 2))
    expected = [0] * 4 + [-2] * 4
    np.testing.assert_array_equal(array(layer.cell.bias), expected)
    np.testing.assert_array_equal(array(layer.cell.depth_bias), expected * 2)
    one = layers.RHN(4, recurrence_depth=1)
    assert np.isfinite(array(one(np.ones((1, 3, 2), "float32")))).all()
    assert one.cell.depth_bias is None


def test_s_lstm_stabilizer_keeps_exponentials_finite():
    layer = layers.SLSTM(4, return_sequences=True, exponential_forget=True)
    x = 500 * np.random.default_rng(0).normal(size=(2, 15, 3)).astype("float32")
    layer.build(x.shape)
    found = gradients(lambda t: keras.ops.sum(layer(t[0])), layer, [x])
    outputs = array(layer(x))
    assert np.abs(outputs).max() <= 1 + 1e-6
    assert all(np.isfinite(each).all() for each in [outputs, *found[0], *found[1]])
