"""Random orders."""

import tensorflow as tf


def random_order(count: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a random order of `count` examples, int32 [count]; equal seeds [2], equal orders."""
    return tf.argsort(tf.random.stateless_uniform(tf.reshape(count, [1]), seed))
