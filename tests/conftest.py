"""Shared setup of the tests: the import path, and replicas on logical CPU devices."""

import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the checkout on sys.path, where `zoo`, `callbacks` and `training`
# would be second copies of the installed packages.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

_REPLICAS = 4


def _split_the_cpu() -> None:
    """Create logical CPU devices; TensorFlow allows this only before it uses the devices."""
    import tensorflow as tf

    parts = [tf.config.LogicalDeviceConfiguration()] * _REPLICAS
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)


_HAS_TENSORFLOW = bool(importlib.util.find_spec("tensorflow")) and (
    os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
)
if _HAS_TENSORFLOW:
    _split_the_cpu()


@pytest.fixture(scope="module", autouse=True)
def _models_are_freed() -> Iterator[None]:
    """Free a module's models at its end, and exclude remaining objects from garbage collection.

    TensorFlow keeps many objects alive. Garbage collections of these objects took a sixth of the
    tests' time, up to 40 s within a single test.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _optimizers_are_built(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the optimizer when a model is compiled, so that Keras traces the train step once.

    Keras traces it twice if the first trace creates the optimizer's variables. The second trace
    takes half of the time of a short `fit`. Tests marked `unbuilt_optimizer` skip this fixture.
    """
    if not _HAS_TENSORFLOW or request.node.get_closest_marker("unbuilt_optimizer"):
        return
    import keras

    # Patch the class that defines it: Keras checks whether a model's class overrides `compile`.
    owner = next(each for each in keras.Model.__mro__ if "compile" in vars(each))
    compile_model = owner.compile

    @functools.wraps(compile_model)
    def compile_and_build(self: keras.Model, *args: Any, **kwargs: Any) -> None:
        compile_model(self, *args, **kwargs)
        optimizer = getattr(self, "optimizer", None)
        if self.built and optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)

    monkeypatch.setattr(owner, "compile", compile_and_build)


@pytest.fixture(scope="session")
def two_replicas() -> "tf.distribute.Strategy":
    """Return one strategy for all tests; collective operations of two strategies would collide."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def four_replicas() -> "tf.distribute.Strategy":
    """Return a strategy that reduces on one device, without collective operations."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(_REPLICAS)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
