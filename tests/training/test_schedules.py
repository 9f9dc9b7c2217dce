"""Learning rate schedules, compared with their formulas."""

import math

import keras
import numpy as np
import pytest

from gradkeeper.training import make_optimizer
from gradkeeper.training.schedules import SCHEDULES, Warmup, make_schedule

STEPS = (0, 1, 7, 10, 25)
FORMULAS = {
    "constant": lambda t: 0.5,
    "cosine": lambda t: 0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * min(t, 10) / 10)) / 2),
    "exponential": lambda t: 0.5 * 0.2 ** (t / 10),
    "linear": lambda t: 0.5 * (1 - 0.9 * min(t, 10) / 10),
    "step": lambda t: 0.5 * 0.2 ** (t // 10),
}
ARGUMENTS = {"decay_steps": 10, "decay_rate": 0.2, "final_fraction": 0.1}


def arguments_of(name):
    return {key: ARGUMENTS[key] for key in SCHEDULES[name]}


def rates(schedule, steps):
    return [float(schedule(step)) if callable(schedule) else schedule for step in steps]


def test_every_schedule_has_a_formula():
    assert FORMULAS.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_schedule_equals_its_formula(name):
    schedule = make_schedule(name, 0.5, **arguments_of(name))
    np.testing.assert_allclose(rates(schedule, STEPS), [*map(FORMULAS[name], STEPS)], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_warmup(name):
    schedule = make_schedule(name, 0.5, warmup_steps=4, **arguments_of(name))
    start = FORMULAS[name](0)
    rise = [start * (step + 1) / 5 for step in range(4)]
    np.testing.assert_allclose(rates(schedule, range(4)), rise, rtol=1e-6)
    later = [4 + step for step in STEPS]
    np.testing.assert_allclose(rates(schedule, later), [*map(FORMULAS[name], STEPS)], rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_warmup_in_the_config_of_an_optimizer(name):
    optimizer = make_optimizer("sgd", 0.5, schedule=name, warmup_steps=4, **arguments_of(name))
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    schedule = twin._learning_rate
    assert isinstance(schedule, Warmup)
    np.testing.assert_allclose(rates(schedule, [2, 9]), rates(optimizer._learning_rate, [2, 9]))


def test_schedule_in_an_optimizer():
    optimizer = make_optimizer("sgd", 0.5, schedule="step", decay_steps=1, decay_rate=0.1)
    variable = keras.Variable(0.0)
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(1.0)], [variable])
    assert float(variable) == pytest.approx(-0.55)


def test_schedule_object():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert make_optimizer("adam", schedule=schedule)._learning_rate is schedule


def test_schedule_object_with_a_rate_is_refused():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    with pytest.raises(
        ValueError, match=r"remove the other arguments.*Received: schedule=.*learning_rate=0\.1"
    ):
        make_optimizer("adam", 0.1, schedule=schedule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosinus"}, r"Did you mean 'cosine'.*Received: schedule='cosinus'"),
        ({"schedule": "cosine"}, r"needs `decay_steps`"),
        ({"schedule": "cosine", "decay_steps": 0}, r"integer of.*Received: decay_steps=0"),
        ({"schedule": "cosine", "decay_steps": 5, "decay_rate": 0.5}, r"uses only decay_steps"),
        ({"decay_steps": 5}, r"'constant' uses only warmup_steps. Received: decay_steps=5"),
        ({"schedule": "step", "decay_steps": 5, "decay_rate": 1.5}, r"\(0, 1\).*decay_rate=1\.5"),
        ({"schedule": "linear", "decay_steps": 5, "final_fraction": -1}, r"\[0, 1\].*=-1"),
        ({"warmup_steps": -1}, r"at least 0. Received: warmup_steps=-1"),
    ],
)
def test_invalid_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer("sgd", 0.1, **arguments)
