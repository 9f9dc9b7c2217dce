"""Pretrained weights: shipped files, and loading them into a model."""

import numpy as np
import pytest

from gradkeeper import zoo
from gradkeeper.zoo import pretrained

SHIPPED = [
    pytest.param(model, name, id=f"{model}-{name}")
    for model in zoo.list_models()
    for name in zoo.list_weights(model)
]


def test_there_are_weights():
    assert {"adding", "jsb_chorales", "tiny_shakespeare"} <= set(zoo.list_weights("gru"))
    assert "tiny_shakespeare" in zoo.list_weights("lstm", "tiny*")
    assert zoo.list_weights("atr") == []


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_loaded_weights_answer_as_they_did_when_they_were_stored(model, name):
    info = zoo.weights_info(model, name)
    loaded = zoo.create_model(model, weights=name)
    outputs = loaded.predict_on_batch(pretrained.probe_inputs(info.options))
    np.testing.assert_allclose(
        np.reshape(outputs, (-1, outputs.shape[-1]))[-1], info.probe, atol=1e-5
    )


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_shipped_files_are_small_and_say_what_they_are(model, name):
    path = pretrained.FOLDER / f"{model}-{name}.npz"
    assert path.stat().st_size <= 1_000_000
    info = zoo.weights_info(model, name)
    assert (info.model, info.name) == (model, name)
    assert info.command.startswith(("gradkeeper bench ", "gradkeeper train "))
    assert 0 < info.loss < 10
    assert info.loss_description
    assert info.steps > 0


def test_a_trained_language_model_writes_text():
    info = zoo.weights_info("gru", "tiny_shakespeare")
    model = zoo.create_model("gru", weights="tiny_shakespeare")
    text = zoo.generate_text(
        model, "ROMEO:", vocabulary=info.vocabulary, length=40, temperature=0.5, seed=0
    )
    assert len(text) == 46
    assert len(set(text)) > 8


def test_options_that_weights_do_not_depend_on_are_free():
    model = zoo.create_model(
        "gru", weights="tiny_shakespeare", input_shape=(20,), dropout=0.1, units=128, seed=3
    )
    assert model.input_shape == (None, 20)
    assert model.layers[2].dropout == 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"units": 64},
        {"output_units": 10},
        {"input_shape": (20, 2)},
        {"num_layers": 2},
        {"layer_norm": True},
        {"task": "classification"},
        {"use_bias": False},
    ],
    ids=str,
)
def test_options_that_contradict_the_weights_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"trained with .*{name}.*Received: {name}=.*'tiny_sh"):
        zoo.create_model("gru", weights="tiny_shakespeare", **options)


def test_options_of_the_layer_are_those_of_the_training():
    layer = zoo.create_model("co_rnn", weights="adding").layers[1]
    assert (layer.cell.frequency, layer.cell.damping) == (66.0, 15.0)
    zoo.create_model("co_rnn", weights="adding", frequency=66.0)
    with pytest.raises(ValueError, match=r"trained with frequency=66.0.*Received: frequency=1.0"):
        zoo.create_model("co_rnn", weights="adding", frequency=1.0)


def test_unknown_weights_name_the_choices():
    with pytest.raises(ValueError, match=r"Did you mean 'tiny_shakespeare'\?.*adding.*Received"):
        zoo.create_model("gru", weights="tiny_shakespear")
    with pytest.raises(ValueError, match="Choose one of: none"):
        zoo.weights_info("atr", "adding")
    with pytest.raises(ValueError, match="Unknown model"):
        zoo.list_weights("grue")


def test_without_weights_a_shape_is_needed():
    with pytest.raises(TypeError, match="`input_shape` and `output_units`, or `weights`"):
        zoo.create_model("gru", units=4)


def test_weights_of_ones_own_are_loaded_from_their_path(tmp_path):
    model = zoo.create_model("mgu", input_shape=(None, 2), output_units=1, units=4)
    options = {"input_shape": [None, 2], "output_units": 1, "units": 4}
    facts = {
        "model": "mgu",
        "name": "mine",
        "options": options,
        "vocabulary": None,
        "loss": 0.5,
        "loss_description": "guess",
        "steps": 1,
        "command": "none",
        "recipe": {},
    }
    path, _ = pretrained.write_weights(tmp_path, model, facts)
    loaded = zoo.create_model("mgu", weights=path)
    for mine, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="of the entry 'mgu'"):
        zoo.create_model("gru", weights=path)
    with pytest.raises(ValueError, match=r"`\.npz` file with a `\.json` file"):
        zoo.create_model("mgu", weights=tmp_path / "none.npz")
