"""Checks of arguments: accepted values are converted, the message names what is allowed."""

import numpy as np
import pytest

from gradkeeper import _arguments as arguments


def test_an_integer_is_returned_as_an_int():
    assert type(arguments.integer("units", np.int64(3))) is int
    assert arguments.integer("seed", 0, minimum=0) == 0


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None, float("nan")])
def test_other_values_are_no_integers(value):
    with pytest.raises(ValueError, match=r"`units` must be an integer of at least 1\. Received"):
        arguments.integer("units", value)


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "message"),
    [
        ("[0, 1)", (0, 0.5, np.float32(0.9)), (-0.1, 1, "0.5", None, True), "a number in [0, 1)"),
        ("(0, 1]", (0.1, 1), (0, 1.1), "a number in (0, 1]"),
        ("(0, inf)", (1e-9, 1e30), (0, -1, float("inf"), float("nan")), "a finite number above 0"),
        ("(1, inf]", (2, float("inf")), (1, float("nan")), "a number above 1"),
        ("[0, inf)", (0, 5), (-1e-9, float("inf")), "a finite number of at least 0"),
    ],
)
def test_numbers_are_checked_against_an_interval(interval, inside, outside, message):
    for value in inside:
        given = arguments.number("rate", value, interval)
        assert type(given) is float
        assert given == value
    for value in outside:
        with pytest.raises(ValueError, match="Received: rate=") as refused:
            arguments.number("rate", value, interval)
        assert str(refused.value).startswith(f"`rate` must be {message}. ")


def test_a_choice_suggests_similar_names():
    assert arguments.choice("policy", "skip", ["stop", "skip"]) == "skip"
    with pytest.raises(ValueError, match="policy") as refused:
        arguments.choice("policy", "rais", ["raise", "skip", None])
    assert str(refused.value) == (
        "Unknown policy. Did you mean 'raise'? Choose one of: None, raise, skip. "
        "Received: policy='rais'"
    )


def test_unknown_argument_names_are_refused():
    arguments.no_unknown("LSTM", [], ["units"])
    with pytest.raises(TypeError, match=r"^LSTM takes the arguments bias, units\. Received: a, b$"):
        arguments.no_unknown("LSTM", ["b", "a"], ["units", "bias"])
