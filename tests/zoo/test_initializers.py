"""Initializers of recurrent matrices and of the biases of gates."""

import keras
import numpy as np
import pytest

from gradkeeper import zoo
from gradkeeper.zoo.initializers import Chrono, NormalizedPositiveDefinite, SkewAngles


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


def test_chrono_gives_time_constants_between_two_and_the_steps():
    i, f, c, o = np.split(array(Chrono(100, seed=1)((4 * 2000,))), 4)
    constants = 1 / (1 - 1 / (1 + np.exp(-f)))
    assert constants.min() == pytest.approx(2, abs=0.2)
    assert constants.max() == pytest.approx(100, abs=0.2)
    assert constants.mean() == pytest.approx(51, abs=2)
    np.testing.assert_array_equal(i, -f)
    assert not c.any()
    assert not o.any()


@pytest.mark.parametrize(
    ("name", "options", "signs"),
    [("lstm", {"unit_forget_bias": False}, (-1, 1, 0, 0)), ("gru", {}, (1, 0, 0))],
)
def test_chrono_in_a_saved_model_of_keras_layers(name, options, signs, tmp_path):
    options = {**options, "bias_initializer": Chrono(50, signs)}
    model = zoo.create_model(
        name, input_shape=(None, 2), output_units=1, units=5, seed=3, **options
    )
    bias = array(model.layers[1].cell.bias)
    inputs, state = (bias, None) if name == "lstm" else bias
    blocks = np.reshape(inputs, (len(signs), 5))
    log_u = blocks[signs.index(1)]
    assert (log_u > 0).all()
    assert (log_u < np.log(49)).all()
    assert len(set(log_u)) == 5
    np.testing.assert_array_equal(blocks, np.outer(signs, log_u))
    assert state is None or not state.any()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[1].cell.bias_initializer
    assert loaded.get_config() == model.layers[1].cell.bias_initializer.get_config()
    assert loaded.signs == signs


def test_chrono_refuses_wrong_arguments():
    with pytest.raises(ValueError, match=r"`steps` must be .* at least 3. Received: steps=2"):
        Chrono(2)
    with pytest.raises(ValueError, match=r"Received: signs=\(2, 0\)"):
        Chrono(10, signs=(2, 0))
    with pytest.raises(ValueError, match=r"multiple of 4.* Received: shape=\(6,\)"):
        Chrono(10)((6,))
