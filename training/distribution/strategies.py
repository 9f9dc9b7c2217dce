"""The strategies of `tf.distribute` by name."""

import functools

import tensorflow as tf

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.distribution.multi_worker import workers_in_environment

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """A `tf.distribute` strategy by its name.

    Each is made once in a process, and given again when it is asked for again.

    Args:
        name: one of `STRATEGIES`.
            "one_device": no distribution: the first GPU, or the CPU.
            "mirrored": all GPUs of this machine; without any, all of its logical CPUs.
            "multi_worker": all GPUs of all machines that `TF_CONFIG` names. To be asked for
                before TensorFlow has done anything.
            "auto": multi_worker if `TF_CONFIG` names several workers, mirrored if there are
                several GPUs, and one_device otherwise.

    Raises:
        ValueError: on an unknown name, or if "multi_worker" finds no `TF_CONFIG`.
        RuntimeError: if "multi_worker" is asked for too late.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if name == "auto":
        name = _usual()
    if name == "one_device":
        return tf.distribute.get_strategy()
    return _mirrored() if name == "mirrored" else _multi_worker()


def name_of(strategy: tf.distribute.Strategy) -> str:
    """The name among `STRATEGIES` of one that was made elsewhere."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return "multi_worker"
    return "mirrored" if isinstance(strategy, tf.distribute.MirroredStrategy) else "one_device"


def sharded(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset of global batches, of which every worker takes its part of each.

    Each worker reads all of it (`AutoShardPolicy.DATA`), so that the workers together see, at
    every step, the batch that one device would see.
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
    # On CPUs TensorFlow's collective operations gain nothing, and there can be one user only.
    ops = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=ops)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    if workers_in_environment() == 0:
        raise ValueError(
            "strategy='multi_worker' reads the machines from the environment variable TF_CONFIG, "
            'such as {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": '
            '"worker", "index": 0}}, with an index of its own on each. Received: TF_CONFIG=""'
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            "strategy='multi_worker' must be the first that a program asks of TensorFlow: make "
            f"the experiment before any other. TensorFlow says: {error}"
        ) from error
