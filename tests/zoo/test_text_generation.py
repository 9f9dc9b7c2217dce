"""Generated text of language models."""

import keras
import numpy as np
import pytest

from gradkeeper import zoo

CHARACTERS = "abcde"


class Vocabulary:
    def encode(self, text):
        return np.array([CHARACTERS.index(character) for character in text])

    def decode(self, tokens):
        return "".join(CHARACTERS[token] for token in tokens)


def language_model(name="gru", **options):
    settings = {"input_shape": (None,), "output_units": 5, "units": 8, "seed": 1}
    return zoo.create_model(name, task="language_model", **{**settings, **options})


def likeliest(model, prompt, length):
    """Continue the prompt greedily, with a pass over the whole text for each character."""
    tokens = list(Vocabulary().encode(prompt))
    for _ in range(length):
        logits = keras.ops.convert_to_numpy(model(np.array([tokens])))
        tokens.append(int(np.argmax(logits[0, -1])))
    return Vocabulary().decode(tokens)


@pytest.fixture(scope="module")
def model():
    return language_model(num_layers=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru", {"num_layers": 2, "residual": True, "layer_norm": True}),
        ("ln_lstm", {}),
        ("lstm", {"stateful": True, "batch_size": 3}),
        ("attention_gru", {}),
        ("min_gru", {"block": True, "convolution": 2}),
        ("attention_rnn", {"input_shape": (12,), "attention": "multiplicative"}),
    ],
)
def test_continues_as_the_whole_text_would(name, options):
    model = language_model(name, **options)
    for kernel in model.trainable_variables:
        kernel.assign(kernel * 3)  # increases the differences between logits
    any_shape = {"input_shape": (None,), "stateful": False, "batch_size": None}
    twin = language_model(name, **{**options, **any_shape})
    twin.set_weights(model.get_weights())
    text = zoo.generate_text(model, "abc", vocabulary=CHARACTERS, length=4, temperature=0)
    assert text == likeliest(twin, "abc", 4)


def test_a_window_moves_along(model):
    model = language_model("attention_gru", input_shape=(4,))
    text = zoo.generate_text(model, "abcdeabc", vocabulary=CHARACTERS, length=6, seed=1)
    assert text.startswith("abcdeabc")
    assert len(text) == 14


@pytest.mark.slow
def test_the_seed_decides_the_text(model):
    texts = [
        zoo.generate_text(model, "ab", vocabulary=list(CHARACTERS), length=30, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert set(texts[0]) <= set(CHARACTERS)


def test_takes_a_vocabulary_object_and_leaves_the_model_alone(model):
    before = [np.array(weight) for weight in model.get_weights()]
    with_object = zoo.generate_text(model, "ab", vocabulary=Vocabulary(), length=5, seed=3)
    assert with_object == zoo.generate_text(model, "ab", vocabulary=CHARACTERS, length=5, seed=3)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert not any(layer.stateful for layer in model.layers if hasattr(layer, "stateful"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "at least one token. Received: prompt=''"),
        ({"prompt": "axyb"}, "only the characters 'abcde'. Received: unknown characters 'xy'"),
        ({"vocabulary": "abc"}, "5 different characters.* Received: 3"),
        ({"vocabulary": "abcdd"}, "5 different characters.* Received: 5, 4 of them different"),
        ({"temperature": -1}, "at least 0. Received: temperature=-1"),
        ({"temperature": float("nan")}, "at least 0. Received: temperature=nan"),
        ({"seed": -1}, "at least 0. Received: seed=-1"),
        ({"length": 0}, "`length` must be .* Received: length=0"),
    ],
)
def test_text_refuses(model, changes, message):
    prompt = changes.pop("prompt", "ab")
    with pytest.raises(ValueError, match=message):
        zoo.generate_text(model, prompt, **{"vocabulary": CHARACTERS, **changes})


def test_text_refuses_tokens_that_the_model_lacks(model):
    class Wide(Vocabulary):
        def encode(self, text):
            return [9]

    with pytest.raises(ValueError, match=r"tokens 0 to 4.* Received: tokens from 9 to 9"):
        zoo.generate_text(model, "a", vocabulary=Wide())


def test_text_refuses_other_models():
    regression = zoo.create_model("gru", input_shape=(None, 2), output_units=1, units=4)
    with pytest.raises(ValueError, match=r"needs a language model.* Received: model='gru'"):
        zoo.generate_text(regression, "a", vocabulary=CHARACTERS)


def test_text_refuses_logits_that_are_not_finite():
    model = language_model()
    model.get_layer("head").bias.assign(np.full(5, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        zoo.generate_text(model, "ab", vocabulary=CHARACTERS, length=1)
