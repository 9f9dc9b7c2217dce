"""Fixtures of the tests of cells."""

from typing import Any, NamedTuple

import keras
import pytest
from every_layer import MASK, make, random_inputs


class Sample(NamedTuple):
    """A layer, and its outputs and states for `random_inputs()` with and without `MASK`."""

    layer: keras.layers.Layer
    unmasked: list[Any]
    masked: list[Any]


@pytest.fixture(scope="module")
def sample(name):
    """Return the sample of the layer that the test's parameter names."""
    keras.utils.set_random_seed(0)
    layer = make(name, return_sequences=True, return_state=True)
    return Sample(layer, layer(random_inputs()), layer(random_inputs(), mask=MASK))
