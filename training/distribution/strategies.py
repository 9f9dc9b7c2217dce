"""tf.distribute strategies by name, and Keras's fit on several machines."""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import keras

from gradkeeper._arguments import choice
from gradkeeper.callbacks._workers import Worker, strategy_of

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from gradkeeper.training.distribution import keras_private


def enable_multi_worker(model: keras.Model) -> keras.Model:
    """Make `fit`, `evaluate` and `predict` work under a `MultiWorkerMirroredStrategy`.

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = ...
            model.compile(...)
        enable_multi_worker(model)
        model.fit(...)  # batch_size is the total over all workers

    Since TensorFlow 2.16, Keras fails under this strategy for two reasons
    (keras-team/keras#20585). It cannot convert a distributed batch to build the model, metrics
    and optimizer, and it reduces the logs of a step along an axis that they do not have.
    Therefore the model is built from this worker's part of the first batch, and each step's logs
    get that axis. No numbers change.

    On one device, on one machine and on the JAX backend nothing changes, so one script works
    everywhere. The model's
    class and saved files stay the same; a cloned or loaded model must be enabled again.

    Args:
        model: a model created in the strategy's scope, compiled or not. A custom `train_step` is
            kept.

    Returns:
        The same model.

    Raises:
        ValueError: if `TF_CONFIG` names several workers and the model was created outside the
            scope of a multi-worker strategy, so that each worker would train a separate model.
        RuntimeError: if the installed Keras version was not tested.
    """
    strategy = strategy_of(model)
    if Worker.of(strategy).count == 1:
        _refuse_lone_worker(strategy)
        return model
    if not keras_private.is_tested():
        versions = ", ".join(f"{major}.{minor}" for major, minor in keras_private.TESTED)
        raise RuntimeError(
            f"Training on several workers was tested with Keras {versions} only. Install one of "
            "these versions. "
            f"Received: keras {keras.__version__}"
        )
    if not keras_private.is_wrapped(model):
        keras_private.wrap_steps(model, _with_axis)
        keras_private.build_from(model, _local_part(strategy))
    return model


def workers_in_environment() -> int:
    """Return the number of workers in `TF_CONFIG`; 0 if it is not set.

    Raises:
        ValueError: if `TF_CONFIG` is not JSON.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text or "{}").get("cluster", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG is not a JSON object. Received: {text!r}") from error
    return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))


def wait_for_all(strategy: "tf.distribute.Strategy | None") -> None:
    """Block until all workers have reached this call; return at once with one worker."""
    if strategy is not None and Worker.of(strategy).count > 1:
        ones = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(1.0))
        strategy.reduce("SUM", ones, axis=None)


@contextmanager
def chief_first(strategy: "tf.distribute.Strategy | None") -> Iterator[None]:
    """Run the block on the chief first, so that the other workers find the files it writes."""
    is_chief = Worker.of(strategy).is_chief
    if not is_chief:
        wait_for_all(strategy)
    yield
    if is_chief:
        wait_for_all(strategy)


def _refuse_lone_worker(strategy: "tf.distribute.Strategy | None") -> None:
    workers = workers_in_environment()
    if workers > 1:
        raise ValueError(
            f"TF_CONFIG names {workers} workers, but each of them would train this model alone: "
            "create and compile it in the scope of a tf.distribute."
            f"MultiWorkerMirroredStrategy. Received: a model under {type(strategy).__name__}"
        )


def _with_axis(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the step with a leading axis of length 1 in its logs, over which Keras averages."""

    def step_with_axis(data: Any) -> Any:
        return keras.tree.map_structure(lambda each: tf.expand_dims(each, 0), step(data))

    return step_with_axis


def _local_part(strategy: "tf.distribute.Strategy") -> Callable[[Any], Any]:
    def first(value: Any) -> Any:
        return strategy.experimental_local_results(value)[0]

    return lambda batch: keras.tree.map_structure(first, batch)


STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "auto") -> "tf.distribute.Strategy | None":
    """Return a `tf.distribute` strategy by name; None on the JAX backend, which has none.

    Each strategy is created once per process; later calls return the same object.

    Args:
        name: one of `STRATEGIES`.
            "one_device": no distribution; the first GPU, or the CPU.
            "mirrored": all GPUs of this machine; without GPUs, all of its logical CPUs.
            "multi_worker": all GPUs of all machines in `TF_CONFIG`. Must be created before
                TensorFlow is initialized.
            "auto": multi_worker if `TF_CONFIG` names several workers, mirrored if there are
                several GPUs, otherwise one_device.

    Raises:
        ValueError: for an unknown name, for "multi_worker" without `TF_CONFIG`, or for several
            devices or workers on another backend than TensorFlow.
        RuntimeError: for "multi_worker" after TensorFlow was initialized.
    """
    choice("strategy", name, STRATEGIES)
    if keras.backend.backend() != "tensorflow":
        workers = workers_in_environment() if name == "auto" else 0
        if name not in ("auto", "one_device") or workers > 1:
            of_workers = f", {workers} workers in TF_CONFIG" if workers else ""
            _refuse_on_this_backend(f"strategy={name!r}{of_workers}")
        return None
    if name == "auto":
        name = _usual()
    if name == "one_device":
        return tf.distribute.get_strategy()
    return _mirrored() if name == "mirrored" else _multi_worker()


def strategy_and_name(
    given: "str | tf.distribute.Strategy",
) -> tuple["tf.distribute.Strategy | None", str]:
    """Return a strategy and its name in `STRATEGIES`, given either of them; see `make_strategy`."""
    if isinstance(given, str):
        return make_strategy(given), given
    if keras.backend.backend() != "tensorflow":
        _refuse_on_this_backend(f"strategy={given!r}")
    return given, name_of(given)


def _refuse_on_this_backend(received: str) -> None:
    raise ValueError(
        "A `tf.distribute` strategy needs the TensorFlow backend of Keras. On other backends, "
        "unset `strategy` and TF_CONFIG. For all devices of this machine, on JAX, call keras."
        "distribution.set_distribution(keras.distribution.DataParallel()) before creating the "
        "`Experiment`. "
        f"Received: {received}, KERAS_BACKEND={keras.backend.backend()}"
    )


def scope_of(strategy: "tf.distribute.Strategy | None") -> AbstractContextManager:
    """Return the context in which a model is created under a strategy."""
    return nullcontext() if strategy is None else strategy.scope()


def name_of(strategy: "tf.distribute.Strategy") -> str:
    """Return the name in `STRATEGIES` that describes a given strategy."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return "multi_worker"
    return "mirrored" if isinstance(strategy, tf.distribute.MirroredStrategy) else "one_device"


def sharded(dataset: "tf.data.Dataset") -> "tf.data.Dataset":
    """Set the dataset of global batches to be split among the workers.

    Each worker reads the whole dataset (`AutoShardPolicy.DATA`), so that the workers together
    process, at every step, the same batch as one device.
    """
    import tensorflow as tf  # tasks use tf.data on every backend

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _usual() -> str:
    if workers_in_environment() > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


@functools.cache
def _mirrored() -> "tf.distribute.Strategy":
    if tf.config.list_logical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    # On CPUs TensorFlow's collective operations bring no speedup, and allow one user only.
    ops = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=ops)


@functools.cache
def _multi_worker() -> "tf.distribute.Strategy":
    if workers_in_environment() == 0:
        raise ValueError(
            "strategy='multi_worker' reads the machines from the environment variable TF_CONFIG, "
            'such as {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": '
            '"worker", "index": 0}}. Set it, with another index on each. Received: TF_CONFIG=""'
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            "strategy='multi_worker' must be created before any other TensorFlow operation: create "
            f"the experiment first. TensorFlow error: {error}"
        ) from error
