"""Initializers of recurrent matrices."""

import keras
import numpy as np
import pytest

from gradkeeper import zoo
from gradkeeper.zoo.initializers import NormalizedPositiveDefinite, SkewAngles


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_normalized_positive_definite():
    matrix = array(NormalizedPositiveDefinite(seed=1)((20, 20)))
    values = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert values.max() == pytest.approx(1.0, abs=1e-5)
    assert values.min() > 0
    with pytest.raises(ValueError, match="must be square"):
        NormalizedPositiveDefinite()((3, 4))


def test_np_rnn_uses_normalized_positive_definite():
    model = zoo.create_model("np_rnn", input_shape=(None, 2), output_units=1, units=8, seed=1)
    kernel = array(model.layers[1].cell.recurrent_kernel)
    assert np.linalg.eigvalsh(kernel).max() == pytest.approx(1.0, abs=1e-5)


def test_skew_angles_rotate_pairs():
    upper = array(SkewAngles(seed=1)((6, 6)))
    assert np.flatnonzero(upper).tolist() == [1, 2 * 6 + 3, 4 * 6 + 5]
    assert np.abs(upper).max() <= np.pi
