"""Four logical CPU devices, so that strategies with several replicas can be tested."""

import pytest
import tensorflow as tf

_REPLICAS = 4

# Before the first test: devices cannot be split once TensorFlow has used them.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * _REPLICAS
)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """One for all tests: collective operations of a second one would meet those of the first."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def four_replicas() -> tf.distribute.Strategy:
    """Reduces on one device, without collective operations."""
    return tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(_REPLICAS)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
