"""The parity problem."""

import math
from typing import Any

import tensorflow as tf

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask

SHORTEST = 3
PADDING = 0
ONE = 2


class Parity(SyntheticTask):
    """Tell whether a string of bits has an even or an odd number of ones.

    M. Beck and others, "xLSTM: Extended long short-term memory", 2024; in the form of the
    authors' code NX-AI/xlstm 032a6fb, experiments/data/formal_language/tasks/parity.py and
    experiments/parity_xlstm01.yaml, which has `length` 40 and `evaluation_length` 256. The
    answer depends on every bit: a model that misses one can only guess. The evaluation strings
    are longer than the training strings.

    The loss stays at the baseline for many steps before it falls: with 32 units, batches of 64 and
    Adam at 0.005, a `gru` guesses for more than 2,000 steps (one run). If the same model predicts
    the parity of the bits so far at each step, 500 steps are enough.

    A sequence of size n has n − 1 random bits, then the answer. n is uniform from 3 to `length`
    in training, and from `length` to `evaluation_length` in evaluation, all inclusive.

    Inputs: int32 [batch, time], 1 for a zero bit, 2 for a one, padded with 0; time is one less
        than the largest n.
    Targets: int32 [batch], 0 for an even number of ones, 1 for an odd one.

    Baseline: ln 2 nats, for two equally probable classes. The scaled accuracy is 2 (a − 1/2) for
    the accuracy a: 0 for guessing, 1 for a perfect model.

    Args:
        length: The largest n in training and the smallest in evaluation, at least 3.
        evaluation_length: The largest n in evaluation, at least `length`.
        **common: `data_dir` and `seed`, see `Task`.
    """

    name = "parity"
    head = "classification"
    input_shape = (None,)
    output_units = 2
    baseline = math.log(2)
    baseline_label = "nats of guessing between two classes: ln 2"

    def __init__(self, *, length: int = 40, evaluation_length: int = 100, **common: Any) -> None:
        longest = integer("length", length, minimum=SHORTEST)
        self.evaluation_length = integer("evaluation_length", evaluation_length, minimum=longest)
        options = {"evaluation_length": self.evaluation_length}
        super().__init__(length=length, options=options, **common)

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; token 0 is padding."""
        return {"vocabulary_size": ONE + 1, "mask_zero": True}

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Bits are uint8 [batch, length − 1], classes [batch]."""
        return _strings(batch_size, seed, SHORTEST - 1, self.length - 1)

    def sample_evaluation(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `sample`. Bits are uint8 [batch, evaluation_length − 1]."""
        return _strings(batch_size, seed, self.length - 1, self.evaluation_length - 1)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convert to int32."""
        return tf.cast(inputs, tf.int32), tf.cast(targets, tf.int32)


def _strings(
    batch_size: int, seed: tf.Tensor, fewest: int, most: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `fewest` to `most` bits per example, padded, and their parity."""
    seeds = tf.unstack(tf.random.split(seed, 2))
    counts = tf.random.stateless_uniform([batch_size], seeds[0], fewest, most + 1, tf.int32)
    bits = tf.random.stateless_uniform([batch_size, most], seeds[1], 1, ONE + 1, tf.int32)
    inputs = tf.where(tf.sequence_mask(counts, most), bits, PADDING)
    odd = tf.math.count_nonzero(inputs == ONE, axis=1) % 2
    return tf.cast(inputs, tf.uint8), tf.cast(odd, tf.uint8)
