"""Remedies as variants of models."""

import itertools

import pytest

from gradkeeper.training import REMEDIES, ExperimentConfig, load_task
from gradkeeper.training.experiment.experiment import build_model


def test_remedies_differ_and_the_first_is_none():
    assert next(iter(REMEDIES)) == "nothing done"
    assert all(REMEDIES[a] != REMEDIES[b] for a, b in itertools.combinations(REMEDIES, 2))


@pytest.mark.parametrize(
    ("label", "task"), [*((label, "adding") for label in REMEDIES), ("attention", "copying")]
)
def test_remedy_gives_a_model(label, task):
    config = ExperimentConfig(**{"units": 4, **REMEDIES[label], "task": task})
    model = build_model(config, load_task(task, length=6), 1)
    assert model.count_params() > 0
