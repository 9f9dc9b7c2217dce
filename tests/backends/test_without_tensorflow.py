"""The command `gradkeeper` and optimizers where TensorFlow is not installed."""

import importlib.util

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from gradkeeper.training import make_optimizer, make_strategy
from gradkeeper.training.cli import app

BACKENDS = ("jax",)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="has TensorFlow"
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["list"], ["list", "gru"]])
def test_command_that_does_not_need_tensorflow(run, arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "gru", "--task", "adding"],
        ["compare", "gru", "lstm", "--task", "adding"],
        ["demo"],
    ],
)
def test_command_that_needs_tensorflow_says_so(run, arguments, tmp_path):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert f"`gradkeeper {arguments[0]}` needs TensorFlow" in done.stderr
    assert "KERAS_BACKEND=jax" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("clip", "left"),
    [
        ({"clipnorm": 1.0}, [[0.6, 0.8], [1.0, 0.0]]),
        ({"global_clipnorm": 1.0}, [[3 / 13, 4 / 13], [12 / 13, 0.0]]),
        ({"clipvalue": 1.0}, [[1.0, 1.0], [1.0, 0.0]]),
    ],
)
def test_clipping(clip, left):
    optimizer = make_optimizer("sgd", 1.0, **clip)
    assert type(optimizer) is keras.optimizers.SGD
    variables = [keras.Variable([0.0, 0.0]) for _ in left]
    gradients = [keras.ops.array([3.0, 4.0]), keras.ops.array([12.0, 0.0])]
    optimizer.apply(gradients, variables)
    np.testing.assert_allclose([-keras.ops.convert_to_numpy(v) for v in variables], left, 1e-6)


def test_there_is_no_strategy():
    assert make_strategy() is make_strategy("one_device") is None
