"""Model names and model metadata."""

import dataclasses

import pytest

from gradkeeper import zoo
from gradkeeper.zoo.registry import collect

FIRST = {
    "simple_rnn",
    "irnn",
    "lstm",
    "gru",
    "ln_simple_rnn",
    "ln_lstm",
    "ln_gru",
    "residual_lstm",
    "attention_rnn",
    "attention_lstm",
    "attention_gru",
    "seq2seq_attention",
}


def test_lists_all_sorted():
    assert set(zoo.list_models()) >= FIRST
    assert zoo.list_models() == sorted(zoo.list_models())


def test_lists_by_wildcard():
    assert set(zoo.list_models("*lstm*")) >= {"lstm", "ln_lstm", "residual_lstm", "attention_lstm"}
    assert all("lstm" in name for name in zoo.list_models("*lstm*"))
    assert zoo.list_models("nothing*") == []


@pytest.mark.parametrize("name", zoo.list_models())
def test_info_is_complete(name):
    info = zoo.model_info(name)
    assert info.name == name
    for text in (info.title, info.paper, info.equations, info.gradient_property):
        assert len(text) > 3
    assert '"' in info.paper
    assert " = " in info.equations
    assert info.initialization
    assert 1980 < info.year < 2030
    assert info.tasks
    for recipe in info.recipes:
        assert {"optimizer", "learning_rate"} <= set(recipe.training)
        assert len({"clipnorm", "global_clipnorm", "clipvalue"} & set(recipe.training)) <= 1


def test_info_can_not_be_changed():
    info = zoo.model_info("lstm")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"
    with pytest.raises(TypeError):
        info.recipe.training["learning_rate"] = 1


@pytest.mark.parametrize(
    ("wrong", "near"), [("lsmt", "'lstm'"), ("GRU", "'gru'"), ("layernorm_lstm", "'ln_lstm'")]
)
def test_unknown_name_proposes_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=rf"Did you mean .*{near}.*Received: model='{wrong}'"):
        zoo.model_info(wrong)
    with pytest.raises(ValueError, match=near):
        zoo.create_model(wrong, input_shape=(None, 2), output_units=1)


def test_a_name_twice_is_refused():
    info = zoo.model_info("lstm")
    with pytest.raises(ValueError, match=r"must be unique. Received: name='lstm'"):
        collect([info], [info])


def test_public_names():
    assert set(zoo.__all__) == {
        "ModelInfo",
        "Recipe",
        "WeightsInfo",
        "cells",
        "create_model",
        "generate",
        "generate_text",
        "layers",
        "list_models",
        "list_weights",
        "load_model",
        "model_info",
        "weights_info",
    }
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None


NOT_IN_EQUATIONS = {"dropout", "recurrent_dropout", "seed"}


@pytest.mark.parametrize("name", zoo.list_models())
def test_symbols_are_options_and_numbers_have_symbols(name):
    info = zoo.model_info(name)
    options = info.layer_options
    assert set(info.symbols.values()) <= set(options)
    for symbol in info.symbols:
        assert symbol.removesuffix(" at the start") in info.equations + info.initialization
    numbers = {
        option
        for option, value in options.items()
        if isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
    }
    assert numbers - NOT_IN_EQUATIONS <= set(info.symbols.values())


def test_a_printed_model_shows_equations_symbols_options_and_recipe():
    text = str(zoo.model_info("co_rnn"))
    shown = [
        "h_t = h_{t-1} + dt * c_t",
        "dt is step_size",
        "gamma is frequency",
        "step_size=0.05",
        "learning_rate=0.02",
        "from coRNN@afd8174, adding_task.py:12-31",
    ]
    assert [line for line in shown if line not in text] == []
    assert "recurrent_initializer=NormalizedPositiveDefinite" in str(zoo.model_info("np_rnn"))


def test_layer_options_are_those_that_create_model_takes():
    options = zoo.model_info("lem").layer_options
    assert options["step_size"] == 1.0
    model = zoo.create_model("lem", input_shape=(None, 2), output_units=1, units=2, step_size=0.5)
    assert model.get_layer("lem_1").cell.step_size == 0.5
