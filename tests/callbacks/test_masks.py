"""Warnings that name the layer at which a mask ends."""

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import GradientMonitor

TOKENS = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 0, 0, 0], [1, 1, 1, 1]])
ONES = np.ones((4, 1))


def ending(layer):
    """Return the layer without mask support, as Keras 3.16 creates it, for every Keras version."""
    layer.supports_masking = False
    return layer


def model_of(*layers, mask_zero=True, **options):
    embedding = keras.layers.Embedding(5, 3, mask_zero=mask_zero)
    return compiled(keras.Sequential([embedding, *layers, keras.layers.Dense(1)]), **options)


def compiled(model, **options):
    model.compile("sgd", "mse", **options)
    return model


def recurrent(name="first", **options):
    return keras.layers.SimpleRNN(3, name=name, return_sequences=True, **options)


def warnings_of(model, capsys, fits=1):
    monitor = GradientMonitor()
    for _ in range(fits):
        model.fit(TOKENS, ONES, batch_size=2, verbose=0, callbacks=[monitor])
    return [line for line in capsys.readouterr().out.splitlines() if "mask ends at" in line]


class Subclassed(keras.Model):
    """Subclassed model without a graph that shows which layers receive a mask."""

    def __init__(self, *layers):
        super().__init__()
        self.embedding = keras.layers.Embedding(5, 3, mask_zero=True)
        self.stack = list(layers)
        self.head = keras.layers.Dense(1)

    def call(self, tokens):
        x = self.embedding(tokens)
        for layer in self.stack:
            x = layer(x)
        return self.head(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        recurrent(),
        keras.layers.Bidirectional(recurrent("inner"), name="first"),
        keras.layers.TimeDistributed(keras.layers.Dense(3), name="first"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_layer_is_named_once(layer, capsys):
    """Check that neither a later layer nor the layer inside a wrapper is named."""
    model = model_of(ending(layer), ending(recurrent("second")), keras.layers.SimpleRNN(2))
    (line,) = warnings_of(model, capsys, fits=2)
    assert f"'first' ({type(layer).__name__})" in line
    assert "supports_masking = True" in line


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_however_the_step_is_run(options, capsys):
    model = model_of(ending(recurrent()), keras.layers.SimpleRNN(2), **options)
    assert len(warnings_of(model, capsys)) == 1


# Keras itself warns about a model whose only layer ends the mask.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_in_a_model_without_a_graph_and_in_a_model_inside(capsys):
    inside = keras.Sequential([keras.Input((4, 3)), ending(recurrent("inside"))])
    model = compiled(Subclassed(inside, keras.layers.SimpleRNN(2)))
    (line,) = warnings_of(model, capsys)
    assert "'inside' (SimpleRNN)" in line


@pytest.mark.slow
def test_no_warning_without_a_mask_that_ends(capsys):
    passing = recurrent()
    passing.supports_masking = True
    last = ending(keras.layers.SimpleRNN(2))
    assert warnings_of(model_of(passing, last), capsys) == []
    assert warnings_of(model_of(ending(recurrent()), last, mask_zero=False), capsys) == []


@pytest.mark.slow
def test_the_remedy_keeps_the_mask_and_restores_the_layer(capsys):
    first = ending(recurrent())
    model = model_of(first, keras.layers.SimpleRNN(2))
    assert len(warnings_of(model, capsys)) == 1
    assert "call" not in vars(first)
    first.supports_masking = True
    model.compile("sgd", "mse")
    assert warnings_of(model, capsys) == []
    padded, alone = model(np.array([[1, 2, 0, 0]])), model(np.array([[1, 2]]))
    np.testing.assert_allclose(padded, alone, atol=1e-6)


@pytest.mark.slow
def test_the_weights_are_those_of_a_training_without_a_monitor():
    trained = []
    for callbacks in ([], [GradientMonitor(verbose=0)]):
        keras.utils.set_random_seed(1)
        model = model_of(ending(recurrent()), keras.layers.SimpleRNN(2))
        model.fit(TOKENS, ONES, batch_size=2, verbose=0, shuffle=False, callbacks=callbacks)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)
