"""`tf.distribute` strategies by name."""

import functools

import tensorflow as tf

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.distribution.multi_worker import workers_in_environment

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Return a `tf.distribute` strategy by name.

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
        ValueError: for an unknown name, or for "multi_worker" without `TF_CONFIG`.
        RuntimeError: for "multi_worker" after TensorFlow was initialized.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if name == "auto":
        name = _usual()
    if name == "one_device":
        return tf.distribute.get_strategy()
    return _mirrored() if name == "mirrored" else _multi_worker()


def name_of(strategy: tf.distribute.Strategy) -> str:
    """Return the name in `STRATEGIES` that describes a given strategy."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return "multi_worker"
    return "mirrored" if isinstance(strategy, tf.distribute.MirroredStrategy) else "one_device"


def sharded(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Set the dataset of global batches to be split among the workers.

    Each worker reads the whole dataset (`AutoShardPolicy.DATA`), so that the workers together
    process, at every step, the same batch as one device.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _usual() -> str:
    if workers_in_environment() > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    if tf.config.list_logical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    # On CPUs TensorFlow's collective operations bring no speedup, and allow one user only.
    ops = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=ops)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
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
