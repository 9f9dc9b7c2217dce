"""Facts about the layers and the optimizers of a model."""

import keras
import pytest

from gradkeeper import zoo
from gradkeeper.callbacks.recording.facts import facts_of

L = keras.layers


def recurrent(layer):
    model = keras.Sequential([keras.Input((3, 2)), layer])
    (found,) = facts_of(model, []).recurrent
    return found


GATED = (
    *("lstm", "star", "minimal_rnn", "atr", "multiplicative_lstm", "lem", "fast_grnn"),
    *("gated_antisymmetric_rnn", "min_gru"),
)


@pytest.mark.parametrize("name", GATED)
def test_gates_of_a_cell_are_known(name):
    model = zoo.create_model(name, input_shape=(3, 2), output_units=1, units=4)
    assert all(each.is_gated for each in facts_of(model, []).recurrent)


def test_a_recurrent_kernel_without_gates():
    assert recurrent(L.SimpleRNN(4)).is_gated is False
    assert recurrent(zoo.layers.IndRNN(4)).is_gated is None


@pytest.mark.parametrize("name", ["min_gru", "min_lstm", "lru", "rg_lru"])
def test_a_linear_recurrence_has_no_unbounded_activation(name):
    model = zoo.create_model(name, input_shape=(3, 2), output_units=1, units=4)
    assert not any(each.unbounded for each in facts_of(model, []).recurrent)
    assert recurrent(L.SimpleRNN(4, "relu")).unbounded == {"activation": "relu"}


def test_an_orthogonal_start_is_known_to_be_possible():
    assert recurrent(L.SimpleRNN(4, recurrent_initializer="glorot_uniform")).can_begin_orthogonal
    for layer in (L.SimpleRNN(4), zoo.layers.OrthogonalRNN(4), zoo.layers.AntisymmetricRNN(4)):
        assert not recurrent(layer).can_begin_orthogonal


def test_the_first_layer_may_be_frozen():
    layers = [L.Rescaling(2.0), L.Dense(3, name="frozen", trainable=False), L.Dense(1)]
    inner = keras.Sequential([keras.Input((2,)), *layers], name="inner")
    assert facts_of(keras.Sequential([inner, L.Dense(1)]), []).first_layer == "inner/frozen"
    assert facts_of(None, []).first_layer == ""
