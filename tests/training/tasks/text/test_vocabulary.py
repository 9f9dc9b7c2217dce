"""Text preprocessing and the vocabulary."""

import numpy as np
import pytest

from gradkeeper.training.tasks import Vocabulary
from gradkeeper.training.tasks.text.vocabulary import preprocess

TEXT = "Ça, là!\r\nWHO's  there?\tÅ — ﬁ 42 ñ."


def test_preprocessing_none():
    assert preprocess(TEXT, "none") == TEXT


def test_preprocessing_letters():
    assert preprocess(TEXT, "letters") == "ca, la! whos there? a n."


def test_preprocessing_of_accents():
    assert preprocess("e\u0301 \u00e9", "letters") == "e e"


def test_unknown_preprocessing_is_refused():
    with pytest.raises(ValueError, match=r"Did you mean 'letters'\?.*'letter'"):
        preprocess("a", "letter")


def test_round_trip():
    vocabulary = Vocabulary.from_text(TEXT + "\U0001f600")
    ids = vocabulary.encode(TEXT)
    assert ids.dtype == np.int32
    assert vocabulary.decode(ids) == TEXT
    assert vocabulary.decode(range(len(vocabulary))) == vocabulary.characters
    assert list(vocabulary.characters) == sorted(set(TEXT + "\U0001f600"))


def test_empty_text():
    assert Vocabulary("ab").encode("").shape == (0,)
    assert Vocabulary("ab").decode([]) == ""


def test_unknown_characters_are_refused():
    with pytest.raises(ValueError, match=r"Known: 'abc'. Received: 'xz'"):
        Vocabulary("abc").encode("azbxz")


@pytest.mark.parametrize("number", [-1, 3])
def test_ids_outside_the_vocabulary_are_refused(number):
    with pytest.raises(ValueError, match=rf"\[0, 3\)\. Received: \[{number}\]"):
        Vocabulary("abc").decode([0, number])


@pytest.mark.parametrize("characters", ["", "ba", "aab"])
def test_unsorted_or_repeated_characters_are_refused(characters):
    with pytest.raises(ValueError, match=f"Received: characters='{characters}'"):
        Vocabulary(characters)
