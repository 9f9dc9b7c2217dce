"""The adding problem."""

from typing import ClassVar

import tensorflow as tf

from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask


class Adding(SyntheticTask):
    """Add the two marked numbers of a long sequence.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997,
    experiment 4; in the form of Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize
    recurrent networks of rectified linear units", 2015, with numbers from U(0, 1).

    Inputs: float32 [batch, length, 2]. Column 0: numbers from U(0, 1). Column 1: 1 at two
        steps, one in each half (steps 0 to ⌊length / 2⌋ − 1, and the rest), 0 elsewhere.
    Targets: float32 [batch, 1], the sum of the two marked numbers.

    Baseline: the mean squared error of the best constant. A U(0, 1) number has variance
    ∫(u − 1/2)² du = 1/12. The two numbers are independent, so their sum has variance 2/12 = 1/6,
    which is the error of the best constant, the mean 1.
    """

    name = "adding"
    head = "regression"
    output_units = 1
    baseline = 1 / 6
    baseline_label = "mean squared error of always predicting 1"
    minimum_length: ClassVar[int] = 2

    @property
    def input_shape(self) -> tuple[int, int]:
        """[length, 2]."""
        return (self.length, 2)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`."""
        seeds = tf.unstack(tf.random.split(seed, 3))
        numbers = tf.random.stateless_uniform([batch_size, self.length], seeds[0])
        half = self.length // 2
        first = _positions(batch_size, seeds[1], 0, half)
        second = _positions(batch_size, seeds[2], half, self.length)
        markers = tf.one_hot(first, self.length) + tf.one_hot(second, self.length)
        total = tf.reduce_sum(numbers * markers, axis=1, keepdims=True)
        return tf.stack([numbers, markers], axis=-1), total


def _positions(batch_size: int, seed: tf.Tensor, low: int, high: int) -> tf.Tensor:
    return tf.random.stateless_uniform([batch_size], seed, low, high, dtype=tf.int32)
