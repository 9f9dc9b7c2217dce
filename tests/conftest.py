"""Shared setup of the tests: the import path, and replicas on logical CPU devices."""

import ctypes
import functools
import gc
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import tensorflow as tf

ROOT = Path(__file__).resolve().parents[1]
_STARTED = time.monotonic()
_MANY = 10  # gradients of some five calls of `fit`, see `_custom_gradients`

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


_PEAKS = pytest.StashKey[dict[str, float]]()


def _peak_memory() -> float:
    """Return the peak resident memory of this process in GB; NaN on Windows."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_memory"] = _peak_memory()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if "peak_memory" in getattr(node, "workeroutput", {}):  # missing if the worker crashed
        peaks = node.config.stash.setdefault(_PEAKS, {})
        peaks[node.gateway.id] = node.workeroutput["peak_memory"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    peaks = config.stash.get(_PEAKS, {"": _peak_memory()})
    memory = ", ".join(f"{peak:.1f} GB {worker}".strip() for worker, peak in sorted(peaks.items()))
    seconds = time.monotonic() - _STARTED
    terminalreporter.write_line(f"Time: {seconds:.0f} s. Peak memory per process: {memory}.")


@pytest.fixture(scope="session", autouse=True)
def _imported_modules_are_not_collected() -> None:
    """Exclude the objects of the imported libraries from garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _usual_datasets_are_not_tuned(request: pytest.FixtureRequest) -> None:
    if _HAS_TENSORFLOW:
        request.getfixturevalue("datasets_are_not_tuned")


@pytest.fixture(scope="session")
def datasets_are_not_tuned() -> Iterator[None]:
    """Disable the autotuning of tf.data, which delays the end of a partly read dataset.

    Where a training ends within an epoch, freeing the dataset blocks for up to a minute.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    begin = tf.data.Dataset.__iter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.data.Dataset, "__iter__", lambda self: begin(self.with_options(options)))
        yield


@pytest.fixture(scope="module", autouse=True)
def _models_are_freed() -> Iterator[None]:
    """Free a module's models at its end."""
    yield
    if _HAS_TENSORFLOW:
        import keras

        keras.backend.clear_session()
        _free_graphs()


@pytest.fixture(autouse=True)
def _graphs_are_freed() -> Iterator[None]:
    """Free the graphs of earlier tests of a module once there are many."""
    yield
    if _HAS_TENSORFLOW and len(_custom_gradients()) > _MANY:
        _free_graphs()


def _custom_gradients() -> list[str]:
    """Return the names of the gradients that TensorFlow has registered for traced calls.

    For every traced call of a `tf.custom_gradient`, which Keras uses, TensorFlow registers a
    gradient under a new name. The registry is never emptied and holds the whole graph, 3 to 12
    MB per `fit`.
    """
    from tensorflow.python.framework import ops

    return [each for each in ops.gradient_registry._registry if each.startswith("CustomGradient-")]


def _free_graphs() -> None:
    from tensorflow.python.framework import ops

    for name in _custom_gradients():
        del ops.gradient_registry._registry[name]
    gc.collect()
    if sys.platform == "linux":  # XLA's compiler leaves about 100 MB of free memory in the heap
        ctypes.CDLL(None).malloc_trim(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Trace each train step at most once, also in the fixtures that the test is the first to use.

    Keras traces it twice if the first trace creates the optimizer's variables, and the second trace
    takes half of the time of a short `fit`. The optimizer is therefore built when the model is
    compiled, but not in tests marked `unbuilt_optimizer`.

    Tests marked `eager` trace nothing: their models run eagerly unless `compile` says how they run.
    """
    if not _HAS_TENSORFLOW:
        return (yield)
    import keras

    # Patch the class that defines it: Keras checks whether a model's class overrides `compile`.
    owner = next(each for each in keras.Model.__mro__ if "compile" in vars(each))
    compile_model = owner.compile
    builds = item.get_closest_marker("unbuilt_optimizer") is None
    is_eager = item.get_closest_marker("eager") is not None

    @functools.wraps(compile_model)
    def compile_and_build(self: keras.Model, *args: Any, **kwargs: Any) -> None:
        is_default = (
            kwargs.get("jit_compile", "auto") == "auto"
            and kwargs.get("steps_per_execution", 1) == 1
        )
        if is_eager and is_default:
            kwargs.setdefault("run_eagerly", True)
        compile_model(self, *args, **kwargs)
        optimizer = getattr(self, "optimizer", None)
        if builds and self.built and optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "compile", compile_and_build)
        return (yield)


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Leave the pictures of runs empty: drawing them takes as long as a short training."""
    from matplotlib.figure import Figure

    from gradkeeper.training.experiment import session

    write_report = session.write_run_report

    def save(self: Figure, file: Any, **options: Any) -> None:
        file.write(b"PNG") if hasattr(file, "write") else Path(file).write_bytes(b"PNG")

    def write_undrawn(result: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", save)
            return write_report(result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "write_run_report", write_undrawn)
        yield


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
