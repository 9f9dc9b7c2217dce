"""`create_model(layer=...)`: a user's recurrent layer with the options of the zoo's models."""

import functools

import keras
import numpy as np
import pytest

from gradkeeper import zoo
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell
from gradkeeper.zoo.layers import CellLayer

FEATURES, UNITS = 3, 4


@keras.saving.register_keras_serializable(package="tests")
class LeakyCell(RecurrentCell):
    """Leaky cell: h_t = (1 - leak) * h_{t-1} + leak * tanh(W x_t + U h_{t-1} + b)."""

    def __init__(self, units, *, leak=0.5, **options):
        super().__init__(units, **options)
        self.leak = leak

    def recur(self, projected, states, training=False):
        h = states[0]
        dropped = self.drop_state(h, training)
        new = self.activation(projected + keras.ops.matmul(dropped, self.recurrent_kernel))
        h = (1 - self.leak) * h + self.leak * new
        return h, [h]


@keras.saving.register_keras_serializable(package="tests")
class LeakyLayer(CellLayer):
    cell_class = LeakyCell


class WithoutConfig(keras.layers.RNN):
    """Subclass of RNN whose constructor does not accept its own config."""

    def __init__(self, units, **options):
        super().__init__(keras.layers.SimpleRNNCell(units), **options)


class Convolution(keras.layers.Layer):
    """Layer that is not a `keras.layers.RNN`."""

    def __init__(self, units, return_sequences=False, **options):
        super().__init__(**options)
        self.units, self.return_sequences = units, return_sequences
        self.inner = keras.layers.Conv1D(units, 3, padding="causal")

    def call(self, inputs):
        outputs = self.inner(inputs)
        return outputs if self.return_sequences else outputs[:, -1]


class Scaled(keras.layers.LSTM):
    """Unregistered LSTM with an argument that its config lacks."""

    def __init__(self, units, scale=1.0, **options):
        super().__init__(units, **options)
        self.scale = scale


def wrapped(units, **options):
    return keras.layers.RNN(LeakyCell(units), **options)


def build(layer, **options):
    settings = {"input_shape": (None, FEATURES), "output_units": 2, "units": UNITS}
    return zoo.create_model(layer=layer, **{**settings, **options})


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def sequences(steps=5):
    return np.random.default_rng(0).normal(size=(2, steps, FEATURES)).astype("float32")


OPTIONS = [
    {},
    {"bidirectional": True, "num_layers": 2, "residual": True, "layer_norm": True},
    {"attention": "additive", "seed": 1},
    {"attention": "multiplicative", "bidirectional": True, "mask_value": 0.0},
    {"pooling": "mean"},
    {"task": "labelling", "num_layers": 2},
    {"block": True, "convolution": 2, "dropout": 0.1, "seed": 1},
    {"task": "language_model", "input_shape": (None,), "mask_zero": True},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "options"),
    [*((LeakyLayer, options) for options in OPTIONS), (wrapped, OPTIONS[0]), (wrapped, OPTIONS[3])],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_layer_of_ones_own_takes_every_option(layer, options, tmp_path):
    model = build(layer, **options)
    tokens = len(options.get("input_shape", (None, FEATURES))) == 1
    inputs = np.array([[1, 1, 0]]) if tokens else sequences(3)
    outputs = array(model(inputs))
    per_step = "task" in options
    assert outputs.shape == ((*inputs.shape[:2], 2) if per_step else (2, 2))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(inputs)), outputs)


def test_layers_and_model_are_called_after_the_class():
    assert build(LeakyLayer).name == "leaky_layer"
    assert build(LeakyLayer, model_name="mine").name == "mine"
    model = build(LeakyLayer, num_layers=2)
    assert isinstance(model.get_layer("leaky_layer_2"), LeakyLayer)
    assert build(functools.partial(wrapped), model_name="mine").get_layer("layer_1")


def test_options_of_the_layer_and_dropout_reach_it():
    cell = (
        build(LeakyLayer, leak=0.1, dropout=0.2, activation="relu").get_layer("leaky_layer_1").cell
    )
    assert (cell.leak, cell.dropout) == (0.1, 0.2)
    assert cell.activation is keras.activations.relu


def test_a_list_has_one_value_per_layer():
    model = build(LeakyLayer, num_layers=2, leak=[0.1, 0.2])
    assert [model.get_layer(f"leaky_layer_{index}").cell.leak for index in (1, 2)] == [0.1, 0.2]


def test_padding_is_masked():
    model = build(LeakyLayer, mask_value=0.0, pooling="mean", bidirectional=True)
    inputs = sequences(4)
    padded = np.concatenate([inputs, np.zeros_like(inputs)], axis=1)
    np.testing.assert_allclose(array(model(padded)), array(model(inputs)), atol=1e-6)


@pytest.mark.parametrize("layer", [LeakyLayer, wrapped])
def test_the_seed_decides_the_weights(layer):
    first, second, other = (build(layer, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_layer_that_is_no_rnn_takes_heads_and_residual_connections():
    model = build(Convolution, num_layers=2, residual=True, attention="multiplicative")
    assert array(model(sequences())).shape == (2, 2)


def test_a_class_that_is_not_registered_is_built_in_two_directions():
    model = build(Scaled, bidirectional=True, seed=1)
    assert type(model.get_layer("scaled_1").forward_layer) is Scaled


def test_one_of_name_and_layer_is_needed():
    sizes = {"input_shape": (None, 2), "output_units": 1}
    with pytest.raises(TypeError, match=r"either the `name`.*Received: name=None, layer=None"):
        zoo.create_model(**sizes)
    with pytest.raises(TypeError, match=r"Received: name='gru', layer=<class .*LeakyLayer'>"):
        zoo.create_model("gru", layer=LeakyLayer, **sizes)
    with pytest.raises(TypeError, match=r"only one of .*weights='a.npz'"):
        zoo.create_model(layer=LeakyLayer, weights="a.npz")


def without_name(units, return_sequences=False, name=None):
    return keras.layers.SimpleRNN(units, return_sequences=return_sequences)


def one_vector(units, return_sequences=False, name=None):
    return keras.layers.SimpleRNN(units, name=name)


REFUSED = [
    (LeakyCell, {}, TypeError, r"not a cell. Wrap a cell.*Received: layer=<class .*LeakyCell'>"),
    (lambda **_: LeakyCell(2), {}, TypeError, r"returned <LeakyCell .*Wrap a cell"),
    (3, {}, TypeError, r"Received: layer=3$"),
    (lambda **_: None, {}, TypeError, r"returned None.*Received: layer=<function"),
    (without_name, {}, TypeError, r"must pass `name` to.*should be 'without_name_1'"),
    (one_vector, {"num_layers": 2}, ValueError, r"must return \[batch, time, 4\].*\(None, 4\)$"),
    (one_vector, {"dropout": 0.1}, TypeError, r"it has no dropout. Received: layer=<function one"),
    (Convolution, {"bidirectional": True}, ValueError, r"Convolution has no go_backwards, ret"),
    (WithoutConfig, {"seed": 1}, ValueError, r"WithoutConfig.get_config` must return units to"),
    (Scaled, {"bidirectional": True, "scale": 2.0}, ValueError, r"must return scale too"),
    (keras.layers.LSTMCell, {}, TypeError, r"not a cell. Wrap a cell"),
    (wrapped, {"return_state": True}, TypeError, r"sets the arg.*Received: return_state$"),
    (LeakyLayer, {"leek": 1}, TypeError, r"LeakyLayer takes the arguments .*Received: leek"),
]


@pytest.mark.parametrize(("layer", "options", "error", "message"), REFUSED)
def test_refuses_a_layer_that_does_not_fit(layer, options, error, message):
    with pytest.raises(error, match=message):
        build(layer, **options)


def test_refuses_a_layer_that_is_built():
    with pytest.raises(TypeError, match="not a layer and not a cell"):
        build(LeakyLayer(UNITS))
