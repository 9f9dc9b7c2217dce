"""Reversal of digit strings."""

import math
import string
from os import PathLike

import tensorflow as tf

from gradkeeper.training.tasks.synthetic.digit_strings import DigitStrings
from gradkeeper.training.tasks.text.vocabulary import START, Vocabulary


class Reverse(DigitStrings):
    """Reverse a string of digits: the answer to 20416 is 61402.

    W. Zaremba and I. Sutskever, "Reinforcement learning neural Turing machines", 2015, the
    reverse task, in the form of sequence to sequence learning (I. Sutskever, O. Vinyals and
    Q. Le, NeurIPS 2014).

    Inputs and targets: see `DigitStrings`; time = steps = length. All digits are equally
    probable at each position.

    Baseline: ln 10 nats per digit, for a uniform distribution over the digits.

    Args:
        length: Number of digits.
        data_dir: Data folder of tensorflow-datasets for the evaluation split.
        seed: Seed of the training batches.
    """

    name = "reverse"
    vocabulary = Vocabulary(START + string.digits)
    baseline = math.log(10)
    baseline_label = "nats per digit of uniform guessing: ln 10"

    def __init__(
        self, *, length: int = 8, data_dir: str | PathLike[str] | None = None, seed: int = 0
    ) -> None:
        super().__init__(length=length, data_dir=data_dir, seed=seed)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Strings are uint8 [batch, length]."""
        shape = [batch_size, self.length]
        digits = tf.random.stateless_uniform(shape, seed, 0, 10, dtype=tf.int32)
        text = tf.cast(digits + ord("0"), tf.uint8)
        return text, tf.reverse(text, axis=[1])
