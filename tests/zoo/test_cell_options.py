"""Options that change a cell's equations, compared with NumPy loops in float64."""

from functools import partial

import keras
import numpy as np
import pytest
import stable_twins as twins

from gradkeeper.zoo import layers

UNITS, FEATURES = 4, 3

CASES = [
    (
        "CoRNN",
        {"step_size": 0.3, "frequency": 1.5, "damping": 0.7, "implicit_damping": True},
        partial(twins.co_rnn, dt=0.3, gamma=1.5, epsilon=0.7, implicit=True),
    ),
    ("LEM", {"step_size": 0.6}, partial(twins.lem, dt=0.6)),
    ("LEM", {"implicit": False}, partial(twins.lem, implicit=False)),
    (
        "LipschitzRNN",
        {"step_size": 0.2, "antisymmetry": 0.6, "diffusion": 0.3, "scheme": "midpoint"},
        partial(twins.lipschitz_rnn, epsilon=0.2, beta=0.6, gamma=0.3, midpoint=True),
    ),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "options", "twin"), CASES)
def test_equals_a_numpy_loop(name, options, twin):
    layer = getattr(layers, name)(UNITS, return_sequences=True, dtype="float64", **options)
    layer.build((2, 5, FEATURES))
    random = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    weights = {weight.name: keras.ops.convert_to_numpy(weight) for weight in layer.weights}
    inputs = random.normal(size=(2, 5, FEATURES))
    expected = [list(twin(weights, sequence)) for sequence in inputs]
    outputs = keras.ops.convert_to_numpy(layer(inputs))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)


REFUSED = [
    ("AntisymmetricRNN", {"step_size": 0}, r"above 0. Received: step_size=0"),
    ("AntisymmetricRNN", {"diffusion": -1}, r"at least 0. Received: diffusion=-1"),
    ("LipschitzRNN", {"antisymmetry": 2}, r"from 0 to 1. Received: antisymmetry=2"),
    ("LipschitzRNN", {"scheme": "rk4"}, r"'euler', 'midpoint'. Received: scheme='rk4'"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_refuses(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(layers, name)(UNITS, **options)
