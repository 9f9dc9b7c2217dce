"""Shared ground of the zoo's tests."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _repeatable():
    keras.utils.set_random_seed(0)
