"""The associative scan, compared with a NumPy loop."""

import keras
import numpy as np
import pytest

from gradkeeper.zoo.cells._scan import associative_scan


@pytest.mark.parametrize("time", [1, 2, 7, 8, 15, 16, 17, 64, 100, 150, 600])
def test_equals_a_loop_in_few_rounds(time):
    rounds = []

    def combine(first, then):
        rounds.append(first[0].shape[1])
        (a1, b1), (a2, b2) = first, then
        return a2 * a1, a2 * b1 + b2

    random = np.random.default_rng(time)
    a, b = random.uniform(size=(1, time, 3)), random.normal(size=(2, time, 3))
    _, found = associative_scan(
        combine, (keras.ops.convert_to_tensor(a), keras.ops.convert_to_tensor(b))
    )
    expected, state = [], np.zeros((2, 3))
    for step in range(time):
        state = a[:, step] * state + b[:, step]
        expected.append(state)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), np.stack(expected, axis=1), rtol=1e-5, atol=1e-6
    )
    assert len(rounds) <= 16 * np.ceil(np.log(max(time, 2)) / np.log(8))
    assert sum(rounds) <= 2.4 * time
