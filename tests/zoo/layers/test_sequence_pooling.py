"""Pooling over time, with masks."""

import keras
import numpy as np
import pytest

from gradkeeper.zoo import layers

BATCH, TIME, WIDTH = 2, 4, 5

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(BATCH, TIME, WIDTH))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


MASK = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], bool)


@pytest.mark.parametrize(
    ("mode", "reduce"),
    [("last", lambda steps: steps[-1]), ("mean", np.mean), ("max", np.max)],
)
def test_pooling_of_unmasked_steps(mode, reduce, values):
    pooled = array(layers.SequencePooling(mode, dtype="float64")(values, mask=MASK))
    for row, mask, result in zip(values, MASK, pooled, strict=True):
        expected = [reduce(feature) for feature in row[mask].T]
        np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["last", "mean", "max"])
def test_pooling_without_mask_equals_a_full_one(mode, values):
    layer = layers.SequencePooling(mode, bidirectional=True, dtype="float64")
    full = array(layer(values, mask=np.ones((BATCH, TIME), bool)))
    np.testing.assert_allclose(array(layer(values)), full, atol=1e-12)
    assert (array(layer(values, mask=np.zeros((BATCH, TIME), bool))) == 0).all()


def test_last_of_a_bidirectional_layer_equals_its_final_output():
    inputs = np.random.default_rng(1).normal(size=(BATCH, TIME, WIDTH)).astype("float32")
    sequences = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True))
    final = keras.layers.Bidirectional(keras.layers.GRU(3))
    final.build(inputs.shape)
    outputs = sequences(inputs, mask=MASK)
    final.set_weights(sequences.get_weights())
    pooled = layers.SequencePooling(bidirectional=True)(outputs, mask=MASK)
    np.testing.assert_allclose(array(pooled), array(final(inputs, mask=MASK)), atol=1e-6)
