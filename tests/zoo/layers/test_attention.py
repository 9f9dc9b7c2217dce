"""Attention layers and their masks, compared with NumPy."""

import keras
import numpy as np
import pytest

from gradkeeper.zoo import layers

BATCH, QUERIES, TIME, WIDTH = 2, 3, 4, 5

pytestmark = pytest.mark.usefixtures("float64")

LAYERS = {
    "additive": lambda **options: layers.BahdanauAttention(6, **options),
    "general": lambda **options: layers.LuongAttention(**options),
    "dot": lambda **options: layers.LuongAttention(score="dot", **options),
}


def score(name, layer, query, values):
    if name == "dot":
        return values @ query
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if name == "general":
        return (values @ kernel) @ query
    bias, last = map(keras.ops.convert_to_numpy, (layer.bias, layer.score_kernel))
    hidden = np.tanh(query @ kernel[:WIDTH] + values @ kernel[WIDTH:] + bias)
    return hidden @ last[:, 0]


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(BATCH, QUERIES, WIDTH)), random.normal(size=(BATCH, TIME, WIDTH))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("name", LAYERS)
def test_equals_numpy(name, data):
    layer = LAYERS[name](dtype="float64")
    context, weights = layer(*data, return_attention_scores=True)
    for b, (queries, values) in enumerate(zip(*data, strict=True)):
        for i, query in enumerate(queries):
            expected = softmax(score(name, layer, query, values))
            np.testing.assert_allclose(array(weights)[b, i], expected, atol=1e-12)
            np.testing.assert_allclose(array(context)[b, i], expected @ values, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_masked_values_are_as_if_absent(name, data):
    query, values = data
    layer = LAYERS[name](dtype="float64")
    mask = np.array([[True, True, False, False]] * BATCH)
    context, weights = layer(query, values, values_mask=mask, return_attention_scores=True)
    np.testing.assert_allclose(array(context), array(layer(query, values[:, :2])), atol=1e-12)
    assert (array(weights)[..., 2:] == 0).all()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_fully_masked_values_give_zeros(name, dtype, data):
    layer = LAYERS[name](dtype=dtype)
    context = array(layer(*data, values_mask=np.zeros((BATCH, TIME), bool)))
    assert (context == 0).all()


@pytest.mark.parametrize("name", LAYERS)
def test_causal_query_attends_only_to_the_past(name, data):
    _, values = data
    layer = LAYERS[name](causal=True, dtype="float64")
    context = array(layer(values, values))
    for step in range(TIME):
        past = values[:, : step + 1]
        alone = array(layer(past, past))[:, step]
        np.testing.assert_allclose(context[:, step], alone, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_single_query_without_axis(name, data):
    query, values = data
    layer = LAYERS[name](dtype="float64")
    context, weights = layer(query[:, 0], values, return_attention_scores=True)
    assert weights.shape == (BATCH, TIME)
    np.testing.assert_allclose(array(context), array(layer(query, values))[:, 0], atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_config_round_trip(name):
    layer = LAYERS[name](causal=True, name="mine")
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_dot_needs_equal_widths(data):
    query, values = data
    with pytest.raises(ValueError, match=r"as wide as the values.* Received: query_shape="):
        layers.LuongAttention(score="dot")(query, values[..., :2])


def test_unknown_score_is_refused():
    with pytest.raises(ValueError, match=r"dot, general. Received: score='concat'"):
        layers.LuongAttention(score="concat")
