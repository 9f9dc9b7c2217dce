"""Sequences that are decoded by encoder-decoders."""

import keras
import numpy as np
import pytest

from gradkeeper import zoo


def encoder_decoder(**options):
    settings = {"input_shape": (None,), "output_units": 6, "units": 32, "seed": 1}
    return zoo.create_model("seq2seq_attention", **{**settings, **options})


@pytest.fixture(scope="module")
def translator():
    return encoder_decoder(units=8)


@pytest.mark.slow
def test_learns_to_reverse_and_decodes_greedily():
    """Train on reversing tokens 2 to 5; token 0 starts and token 1 ends a sequence."""
    source = np.random.default_rng(0).integers(2, 6, size=(512, 3))
    answer = np.concatenate([source[:, ::-1], np.ones((512, 1), int)], axis=1)
    target = np.concatenate([np.zeros((512, 1), int), answer[:, :-1]], axis=1)
    model = encoder_decoder(attention="multiplicative")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    model.fit({"source": source, "target": target}, answer, epochs=12, batch_size=64, verbose=0)
    decoded = zoo.generate(model, source[:32], start_token=0, max_length=6, end_token=1)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, answer[:32])


@pytest.mark.slow
@pytest.mark.parametrize("attention", [None, "none"])
def test_decoding_equals_feeding_back_by_hand(attention):
    translator = encoder_decoder(units=8, attention=attention)
    source = np.array([[2, 3, 4], [5, 4, 2]])
    target = np.zeros((2, 1), int)
    for _ in range(4):
        logits = keras.ops.convert_to_numpy(translator({"source": source, "target": target}))
        target = np.concatenate([target, logits[:, -1:].argmax(axis=-1)], axis=1)
    decoded = zoo.generate(translator, source, start_token=0, max_length=4)
    np.testing.assert_array_equal(decoded, target[:, 1:])
    alone = zoo.generate(translator, source[0], start_token=0, max_length=4)
    np.testing.assert_array_equal(alone, decoded[0])


def test_nothing_but_end_tokens_after_the_end(translator):
    source = np.array([[2, 3, 4], [5, 4, 2], [3, 3, 3]])
    free = zoo.generate(translator, source, start_token=0, max_length=6)
    end = int(free[0, 1])
    decoded = zoo.generate(translator, source, start_token=0, max_length=6, end_token=end)
    for row, whole in zip(decoded, free, strict=True):
        ends = np.flatnonzero(whole == end)
        stop = ends[0] + 1 if len(ends) else len(row)
        np.testing.assert_array_equal(row[:stop], whole[: len(row)][:stop])
        assert (row[stop:] == end).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": np.zeros((0, 3), int)}, r"not empty. Received: source of shape \(0, 3\)"),
        ({"source": np.ones((1, 3))}, "integer tokens.* dtype float64"),
        ({"source": np.array([[9]])}, "tokens from 0 to 5. Received: source from 9 to 9"),
        ({"start_token": 6}, "`start_token` must be tokens from 0 to 5"),
        ({"max_length": 0}, "`max_length` must be .* Received: max_length=0"),
    ],
)
def test_decoding_refuses(translator, changes, message):
    settings = {"source": np.array([[2, 3]]), "start_token": 0, "max_length": 3, **changes}
    with pytest.raises(ValueError, match=message):
        zoo.generate(translator, settings.pop("source"), **settings)


def test_decoding_refuses_other_models():
    model = zoo.create_model(
        "gru", input_shape=(None,), output_units=5, units=4, task="language_model"
    )
    with pytest.raises(ValueError, match=r"needs an encoder-decoder.* Received: model='gru'"):
        zoo.generate(model, np.array([[1]]), start_token=0, max_length=2)


def test_decoding_refuses_padding_as_start():
    masked = encoder_decoder(mask_zero=True, units=4)
    with pytest.raises(ValueError, match=r"padding in this model.* Received: start_token=0"):
        zoo.generate(masked, np.array([[1]]), start_token=0, max_length=2)
