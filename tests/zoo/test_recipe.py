"""Training recipes: settings that depend on the length, and sources."""

import math

import pytest

from gradkeeper.zoo.recipe import OfLength, Recipe


def recipe(**changes):
    settings = {
        "task": "adding",
        "task_options": {"length": 100},
        "model": {"units": 8, "step_size": OfLength(5, -1)},
        "training": {"optimizer": "adam", "epochs": 3, "steps_per_epoch": 10},
        "source": "the paper, section 5",
        "own": ("units", "epochs"),
    }
    return Recipe(**{**settings, **changes})


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        (OfLength(1.5), 300, "1.5 * T^1"),
        (OfLength(1.25), 250, "1.25 * T^1"),
        (OfLength(5, -1), 0.025, "5 * T^-1"),
        (OfLength(-1, 0), -math.log(200), "-1 * log T"),
        (OfLength(500, -1, maximum=1.0), 1.0, "min(1, 500 * T^-1)"),
    ],
)
def test_value_for_a_length(setting, value, text):
    assert setting.at(200) == value
    assert type(setting.at(200)) is type(value)
    assert repr(setting) == text


def test_settings_depend_on_the_length_also_inside_of_others():
    chrono = {"class_name": "Chrono", "config": {"steps": OfLength(1.0)}}
    made = recipe(model={"bias": chrono, "sizes": [OfLength(2.0), 3]}, own=())
    assert made.at(7).model["bias"]["config"] == {"steps": 7}
    assert made.at().model["bias"]["config"] == {"steps": 100}
    assert made.at(7).model["sizes"] == [14, 3]
    assert made.at(7).training == made.training


def test_sources():
    assert recipe().source_of("step_size") == "the paper, section 5"
    assert recipe().source_of("units") == "gradkeeper"
    assert Recipe(training={"epochs": 1}).source_of("epochs") == "gradkeeper"


def test_number_of_steps():
    assert recipe().steps == 30
    assert Recipe(training={"epochs": 3}).steps is None


def test_text_names_settings_and_source():
    lines = str(recipe()).splitlines()
    assert "units=8  (gradkeeper)" in lines
    assert "step_size=5 * T^-1" in lines
    assert lines[-1] == "from the paper, section 5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_options": {}, "own": ()}, "needs a `length`.*Received: task_options={}"),
        ({"own": ("rate",)}, r"Received: \['rate'\]"),
    ],
)
def test_refused_recipes(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)
