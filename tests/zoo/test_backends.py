"""The zoo on a Keras backend other than TensorFlow."""

import subprocess
import sys

import keras
import pytest

# Keras itself imports TensorFlow, where it is installed, to serialize layers.
TRAINING = """
import sys
sys.modules["tensorflow"] = None  # not to be imported

import numpy as np
from gradkeeper import zoo
from gradkeeper.zoo import cells, layers

for package in (cells, layers):
    assert all(hasattr(package, name) for name in package.__all__)
for name in ("min_gru", "ln_lstm", "attention_gru"):
    options = {"input_shape": (7, 3), "output_units": 2, "units": 4, "seed": 1}
    model = zoo.create_model(name, task="regression", **options)
    model.compile("adam", "mse")
    assert np.isfinite(model.train_on_batch(np.ones((2, 7, 3)), np.ones((2, 2))))
assert not [name for name in sys.modules if name.startswith("tensorflow.")]
"""


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow is the backend")
def test_models_train_without_tensorflow():
    subprocess.run([sys.executable, "-c", TRAINING], check=True)
