"""The recurrent layers of the zoo, and helpers of their tests."""

import keras
import numpy as np

from gradkeeper.zoo import layers

NAMES = [
    name
    for name in layers.__all__
    if issubclass(getattr(layers, name), layers.CellLayer) and name != "CellLayer"
]
# Layers that have every base class of the cells and layers among them.
KINDS = [
    "LEM",
    "LRU",
    "LayerNormGRU",
    "MinGRU",
    "OrthogonalRNN",
    "PeepholeLSTM",
    "SLSTM",
    "STAR",
    "ZoneoutLSTM",
]
BATCH, TIME, FEATURES, UNITS = 3, 6, 4, 5
# No masked step; masked steps at the end; masked steps at both ends and in the middle.
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0]], bool)
# Options that add random numbers. `test_stabilised.py` tests them.
NOISE = ("zoneout", "cell_zoneout")


def make(name, /, **options):
    """Return a layer without noise."""
    layer = getattr(layers, name)
    quiet = {option: 0.0 for option in NOISE if option in layer.option_defaults()}
    return layer(UNITS, **{**quiet, **options})


def random_inputs(features=FEATURES, dtype="float32"):
    return np.random.default_rng(0).normal(size=(BATCH, TIME, features)).astype(dtype)


def keras_rnn(layer, features=FEATURES, **loop):
    """Return `keras.layers.RNN` over the same cell, which projects one step at a time."""
    cell = layer.cell_class.from_config(layer.cell.get_config())
    rnn = keras.layers.RNN(cell, **loop)
    rnn.build((BATCH, TIME, features))
    rnn.set_weights(layer.get_weights())
    return rnn


def like(layer, **changes):
    """Return a layer with the same weights and changed options."""
    twin = type(layer).from_config({**layer.get_config(), **changes})
    twin.build((BATCH, TIME, FEATURES))
    twin.set_weights(layer.get_weights())
    return twin


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(array(actual), array(expected), rtol=0, atol=atol)
