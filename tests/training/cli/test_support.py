"""Helpers of the commands."""

import pytest

from gradkeeper.training.cli.support import pairs


def test_values_are_json_or_words_of_python_or_text():
    texts = ["a=1", "b=false", "c=True", "d=None", 'e=["x"]', "f=2020-1-1", "g=0x10", "h-i=no"]
    values = [1, False, True, None, ["x"], "2020-1-1", "0x10", "no"]
    assert pairs("--option", texts) == dict(zip([*"abcdefg", "h_i"], values, strict=True))


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_each_value_has_a_key_of_its_own(texts):
    with pytest.raises(ValueError, match="takes key=value, each key once"):
        pairs("--option", texts)
