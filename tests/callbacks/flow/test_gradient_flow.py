"""Gradients through time, compared with PyTorch vectors and a loop unrolled by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from references.reference import VECTORS

from gradkeeper.callbacks.flow import gradient_flow
from gradkeeper.callbacks.flow.gradient_flow import StateFlow

L = keras.layers


def vectors(name):
    with np.load(VECTORS / f"{name}.npz") as arrays:
        return dict(arrays)


def lstm_weights(arrays, suffix):
    """Return the LSTM weights; both libraries order the gates i, f, c, o."""
    kernels = [arrays[f"param/weight_{part}_{suffix}"].T for part in ("ih", "hh")]
    return [*kernels, arrays[f"param/bias_ih_{suffix}"] + arrays[f"param/bias_hh_{suffix}"]]


def gru_weights(arrays):
    """Return the GRU weights; Keras orders the gates z, r, h and PyTorch r, z, n."""
    order = np.concatenate([np.arange(5, 10), np.arange(5), np.arange(10, 15)])
    kernels = [arrays[f"param/weight_{part}_l0"][order].T for part in ("ih", "hh")]
    return [*kernels, np.stack([arrays[f"param/bias_{part}_l0"][order] for part in ("ih", "hh")])]


def flow_of(layers, arrays):
    """Return the flow of the vectors' loss, sum(outputs * dout), in float64."""
    inputs = keras.Input((None, 4), dtype="float64")
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    weighing = np.swapaxes(arrays["dout"], 0, 1)
    x = np.swapaxes(arrays["x"], 0, 1)
    return model, lambda: gradient_flow(model, x, loss=lambda y: tf.reduce_sum(y * weighing))


def assert_norms(flow, gradients):
    np.testing.assert_allclose(flow.norms, np.linalg.norm(gradients, axis=-1), rtol=1e-10)


OPTIONS = {"return_sequences": True, "dtype": "float64"}


def test_lstm():
    arrays = vectors("torch_LSTM")
    layer = L.LSTM(5, name="lstm", **OPTIONS)
    _, run = flow_of([layer], arrays)
    layer.set_weights(lstm_weights(arrays, "l0"))
    flow = run()
    assert [each.name for each in flow] == ["lstm h", "lstm c"]
    assert_norms(flow["lstm"], arrays["grad/h"])
    assert_norms(flow["lstm c"], arrays["grad/c"])


def test_gru():
    arrays = vectors("torch_GRU")
    layer = L.GRU(5, name="gru", **OPTIONS)
    _, run = flow_of([layer], arrays)
    layer.set_weights(gru_weights(arrays))
    assert_norms(run()["gru"], arrays["grad/h"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_simple_rnn_and_any_cell(wrapped):
    arrays = vectors("torch_RNN_tanh")
    cell = L.SimpleRNNCell(5, dtype="float64")
    layer = L.RNN(cell, name="rnn", **OPTIONS) if wrapped else L.SimpleRNN(5, name="rnn", **OPTIONS)
    _, run = flow_of([layer], arrays)
    layer.set_weights(lstm_weights(arrays, "l0"))
    assert_norms(run()["rnn"], arrays["grad/h"])


def test_two_layers():
    arrays = vectors("torch_LSTM_2layer")
    lower, upper = L.LSTM(5, name="lower", **OPTIONS), L.LSTM(5, name="upper", **OPTIONS)
    _, run = flow_of([lower, upper], arrays)
    lower.set_weights(lstm_weights(arrays, "l0"))
    upper.set_weights(lstm_weights(arrays, "l1"))
    flow = run()
    assert_norms(flow["upper"], arrays["grad/h"])
    assert_norms(flow["lower"], arrays["grad/h_l0"])


def test_bidirectional_in_the_sequences_own_order():
    arrays = vectors("torch_LSTM_bidirectional")
    layer = L.Bidirectional(L.LSTM(5, name="lstm", **OPTIONS), name="both", dtype="float64")
    _, run = flow_of([layer], arrays)
    layer.forward_layer.set_weights(lstm_weights(arrays, "l0"))
    layer.backward_layer.set_weights(lstm_weights(arrays, "l0_reverse"))
    flow = run()
    assert_norms(flow["both/forward_lstm"], arrays["grad/h"])
    assert_norms(flow["both/backward_lstm"], arrays["grad/h_reverse"])


def masked_model(layer):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6, 3)), L.Masking(), layer, L.Dense(1, name="head")], name="masked"
    )


@pytest.mark.parametrize("go_backwards", [False, True])
def test_padding_is_as_if_absent(go_backwards):
    model = masked_model(L.LSTM(4, name="lstm", go_backwards=go_backwards))
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    x[1, 4:] = 0
    flow = gradient_flow(model, x, loss=tf.reduce_sum)
    alone = gradient_flow(model, x[1:, :4], loss=tf.reduce_sum)
    for state in ("lstm h", "lstm c"):
        assert np.isnan(flow[state].norms[4:, 1]).all()
        assert np.isfinite(flow[state].norms[:, 0]).all()
        np.testing.assert_allclose(flow[state].norms[:4, 1], alone[state].norms[:, 0], rtol=1e-5)


def test_stacked_cells_in_a_nested_model_by_hand():
    keras.utils.set_random_seed(0)
    cells = [L.GRUCell(3, name="low"), L.LSTMCell(4, name="high")]
    inner = keras.Sequential([keras.Input((5, 2)), L.RNN(cells, name="stack")], name="inner")
    model = keras.Sequential([keras.Input((5, 2)), inner, L.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    y = np.ones((3, 1), "float32")
    flow = gradient_flow(model, x, y)
    assert [each.state for each in flow] == ["h", "c", "state 2"]
    assert {each.layer for each in flow} == {"inner/stack"}
    with tf.GradientTape() as tape:
        low, high = [tf.zeros((3, 3))], [tf.zeros((3, 4))] * 2
        seen = []
        for step in tf.unstack(x, axis=1):
            output, low = cells[0](step, low)
            output, high = cells[1](output, high)
            seen.append([low[0], *high])
        loss = tf.reduce_mean(tf.square(model.layers[-1](output) - y))
    gradients = tape.gradient(loss, seen)
    for number, each in enumerate(flow):
        expected = [np.linalg.norm(step[number], axis=1) for step in gradients]
        np.testing.assert_allclose(each.norms, expected, rtol=1e-4, atol=1e-9)
    assert flow.loss == pytest.approx(float(loss), rel=1e-5)


def test_nothing_of_the_model_is_changed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 2), batch_size=3)
    x = L.LSTM(3, dropout=0.5, stateful=True, return_sequences=True)(inputs)
    model = keras.Model(inputs, L.BatchNormalization()(x))
    model.compile("sgd", "mse")
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    loops = [vars(layer).get("inner_loop") for layer in model.layers]
    gradient_flow(model, np.ones((3, 4, 2)), np.ones((3, 4, 3)), training=True)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(variable))
    assert [vars(layer).get("inner_loop") for layer in model.layers] == loops == [None] * 3


def test_frozen_layers_are_seen_as_well():
    model = masked_model(L.LSTM(4, name="lstm"))
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    trained = gradient_flow(model, x, loss=tf.reduce_sum)
    model.trainable = False
    frozen = gradient_flow(model, x, loss=tf.reduce_sum)
    for one, other in zip(trained, frozen, strict=True):
        np.testing.assert_allclose(one.norms, other.norms, rtol=1e-6)


def test_without_recurrent_layer_or_loss():
    dense = keras.Sequential([keras.Input((3,)), L.Dense(1)], name="dense")
    with pytest.raises(ValueError, match=r"no recurrent layer\..*Received: model='dense'"):
        gradient_flow(dense, np.ones((1, 3)))
    with pytest.raises(ValueError, match="Compile the model or pass `loss`"):
        gradient_flow(masked_model(L.LSTM(2)), np.ones((1, 6, 3)))
    model = masked_model(L.SimpleRNN(2, name="rnn"))
    flow = gradient_flow(model, np.ones((1, 6, 3)), loss=tf.reduce_sum)
    with pytest.raises(KeyError, match=r"Known: rnn h\. Received: name='lstm'"):
        flow["lstm"]


# Values computed from the norms.


def test_slope_and_half_life_of_a_linear_network():
    """Check dh_t = dh_T w^(T-t), whose half-life is ln 2 / -ln w steps."""
    layer = L.SimpleRNN(1, None, use_bias=False, name="rnn")
    model = keras.Sequential([keras.Input((20, 1)), layer])
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5)])
    flow = gradient_flow(model, np.ones((2, 20, 1)), loss=tf.reduce_sum)["rnn"]
    assert flow.growth == pytest.approx(0.5)
    assert flow.half_life == pytest.approx(1.0)
    assert flow.reach == "vanishing"
    assert str(flow) == "rnn h: vanishing, times 0.5 per step back, halves in 1 steps"


@pytest.mark.parametrize(
    ("factor", "reach", "half_life"),
    [(2.0, "exploding", np.inf), (1.0, "stable", np.inf), (0.99, "stable", 68.97)],
)
def test_reach(factor, reach, half_life):
    norms = factor ** np.arange(20.0)[::-1, np.newaxis] * np.ones(3)
    flow = StateFlow("rnn", "h", norms)
    assert flow.reach == reach
    assert flow.half_life == pytest.approx(half_life, rel=1e-3)


def test_a_stable_gradient_is_described_by_its_change_over_the_sequence():
    norms = 0.742 ** np.arange(10.0)[::-1, np.newaxis]
    flow = StateFlow("lstm", "h", norms)
    assert str(flow) == "lstm h: stable, times 0.0682 over 10 steps"
    assert flow.half_life == pytest.approx(2.32, rel=1e-2)


def test_steps_back_are_counted_from_each_examples_last_real_step():
    norms = np.full((8, 3), np.nan)
    for example, length in enumerate([8, 5, 2]):
        norms[:length, example] = 0.5 ** np.arange(length)[::-1]
    flow = StateFlow("rnn", "h", norms)
    np.testing.assert_allclose(flow.norm_back, 0.5 ** np.arange(8))
    assert flow.growth == pytest.approx(0.5)
    padded_before = StateFlow("rnn", "h", norms[::-1][:, :1])
    assert padded_before.growth == pytest.approx(2.0)


def test_a_layer_that_reads_backwards_has_its_last_step_first():
    layer = L.SimpleRNN(1, None, use_bias=False, go_backwards=True, name="rnn")
    model = keras.Sequential([keras.Input((20, 1)), layer])
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5)])
    flow = gradient_flow(model, np.ones((2, 20, 1)), loss=tf.reduce_sum)["rnn"]
    assert flow.growth == pytest.approx(0.5)
    assert flow.reach == "vanishing"


@pytest.mark.slow
def test_a_mask_restores_the_gradient_that_padding_removes():
    x = np.zeros((8, 80), "int32")
    x[:, :10] = np.random.default_rng(0).integers(1, 20, (8, 10))
    told = []
    for mask_zero in (False, True):
        keras.utils.set_random_seed(1)
        tokens = L.Embedding(20, 4, mask_zero=mask_zero)
        model = keras.Sequential(
            [keras.Input((80,), dtype="int32"), tokens, L.LSTM(6, name="lstm")]
        )
        told.append(gradient_flow(model, x, loss=tf.reduce_sum)["lstm"])
    padded, masked = told
    assert (padded.reach, masked.reach) == ("vanishing", "stable")
    assert "halves in" in str(padded)
    assert str(masked).endswith("over 10 steps")


def test_percentiles_leave_out_masked_examples():
    norms = np.array([[1.0, 3.0, np.nan], [np.nan] * 3])
    flow = StateFlow("rnn", "h", norms)
    np.testing.assert_allclose(flow.percentiles([0, 50, 100])[:, 0], [1, 2, 3])
    assert np.isnan(flow.percentiles()[:, 1]).all()
    np.testing.assert_allclose(flow.norm, [np.sqrt(10), np.nan])
