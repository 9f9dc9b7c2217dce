"""The scan of a linear recurrence, compared with a NumPy loop."""

import keras
import numpy as np
import pytest

from gradkeeper.zoo.cells._scan import linear_scan, merge_chunks, split_into_chunks


@pytest.mark.parametrize("time", [1, 2, 3, 7, 16, 17, 64, 97, 100, 600])
def test_equals_a_loop_in_few_rounds(time):
    rounds = []

    def multiply(a, s):
        rounds.append(s.shape)
        return a * s

    random = np.random.default_rng(time)
    a, b = random.uniform(-1, 1, (1, time, 3)), random.normal(size=(2, time, 3))
    state = random.normal(size=(2, 3))
    chunks = [split_into_chunks(keras.ops.convert_to_tensor(each)) for each in (a, b)]
    steps = list(zip(*chunks, strict=True))
    found = linear_scan(multiply, steps, keras.ops.convert_to_tensor(state))
    expected = []
    for step in range(time):
        state = a[:, step] * state + b[:, step]
        expected.append(state)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(merge_chunks(found, time)),
        np.stack(expected, axis=1),
        rtol=1e-5,
        atol=1e-6,
    )
    # Three products for each step of a chunk, and one for each chunk.
    assert len(rounds) <= 4.5 * np.sqrt(time)
