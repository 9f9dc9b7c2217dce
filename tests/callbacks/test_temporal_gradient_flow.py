"""Gradients through time, recorded while a model is trained."""

import keras
import numpy as np
import pytest

from gradkeeper.callbacks import TemporalGradientFlow

X = np.random.default_rng(0).normal(size=(32, 7, 2)).astype("float32")
Y = X.sum(axis=(1, 2))[:, np.newaxis]


def trained(*callbacks, epochs=4):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((None, 2)), keras.layers.LSTM(4, dropout=0.2, name="lstm")]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="mae")])
    return model, model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.slow
@pytest.mark.eager
def test_records_before_training_and_after_epochs():
    flow = TemporalGradientFlow(X[:5], Y[:5], every_epochs=2)
    _, history = trained(flow)
    assert list(flow.flows) == [0, 2, 4]
    assert flow.flows[4]["lstm c"].norms.shape == (7, 5)
    half_life = flow.flows[4]["lstm"].half_life
    assert history["flow_half_life/lstm"][-1] == pytest.approx(half_life)


@pytest.mark.slow
def test_training_is_not_changed():
    plain, expected = trained()
    seen, history = trained(TemporalGradientFlow(X[:5], Y[:5], epoch_logs=False))
    assert history == expected
    for one, other in zip(plain.get_weights(), seen.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.eager
def test_pictures(tmp_path):
    flow = TemporalGradientFlow(X[:5], Y[:5])
    trained(flow, epochs=2)
    figure = flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    titles = [axes.get_title("left") for axes in figure.axes]
    assert "lstm h: norm of the gradient" in titles
    lines = flow.flows[2].plot()
    assert str(flow.flows[2]["lstm c"]) in [axes.get_title("left") for axes in lines.axes]


@pytest.mark.slow
@pytest.mark.eager
def test_a_gradient_of_zero_can_be_drawn():
    flow = TemporalGradientFlow(X[:5], loss=lambda y: keras.ops.sum(y) * 0.0)
    trained(flow, epochs=1)
    heat, *_ = flow.plot().axes
    assert heat.get_title("left").endswith("white: zero, masked or not finite")
    lines, *_ = flow.flows[1].plot().axes
    assert "median is zero" in [text.get_text() for text in lines.get_legend().get_texts()]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`every_epochs` must be an integer of at least 1"):
        TemporalGradientFlow(X, every_epochs=0)
    with pytest.raises(ValueError, match="Nothing has been recorded"):
        TemporalGradientFlow(X).plot()
