"""The temporal order problem."""

import math
from typing import ClassVar

import tensorflow as tf

from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask

# Symbols: a, b, c, d are distractors, X and Y determine the class, E starts and B ends.
DISTRACTORS = 4
X = 4
START = 6
END = 7
SYMBOLS = 8


class TemporalOrder(SyntheticTask):
    """Classify the order of two symbols, each X or Y.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997,
    experiment 6a, with a fixed length and positions that scale with it.

    Inputs: float32 [batch, length, 8], one-hot over (a, b, c, d, X, Y, E, B). Step 0 is E, the
        last is B. The first of the two symbols is at a step from ⌊length/10⌋ to ⌊2·length/10⌋,
        the second from ⌊5·length/10⌋ to ⌊6·length/10⌋, both inclusive; the other steps are
        random letters from a, b, c, d. `length` is at least 10.
    Targets: int32 [batch]: XX 0, XY 1, YX 2, YY 3.

    Baseline: a cross-entropy of ln 4 nats, the best constant prediction for four equally
    probable classes.
    """

    name = "temporal_order"
    head = "classification"
    output_units = 4
    baseline = math.log(4)
    baseline_label = "nats of guessing among four classes: ln 4"
    minimum_length: ClassVar[int] = 10

    @property
    def input_shape(self) -> tuple[int, int]:
        """[length, 8]."""
        return (self.length, SYMBOLS)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Symbols are uint8 [batch, length], classes [batch]."""
        seeds = tf.unstack(tf.random.split(seed, 4))

        def integers(index: int, size: list[int], low: int, high: int) -> tf.Tensor:
            return tf.random.stateless_uniform(size, seeds[index], low, high, dtype=tf.int32)

        letters = integers(0, [batch_size, self.length], 0, DISTRACTORS)
        classes = integers(1, [batch_size], 0, self.output_units)
        tenth = [k * self.length // 10 for k in range(7)]
        first = integers(2, [batch_size], tenth[1], tenth[2] + 1)
        second = integers(3, [batch_size], tenth[5], tenth[6] + 1)
        symbols = _place(letters, first, X + classes // 2)
        symbols = _place(symbols, second, X + classes % 2)
        symbols = _place(symbols, tf.zeros_like(first), tf.fill([batch_size], START))
        symbols = _place(
            symbols, tf.fill([batch_size], self.length - 1), tf.fill([batch_size], END)
        )
        return tf.cast(symbols, tf.uint8), tf.cast(classes, tf.uint8)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convert to one-hot inputs and int32 classes."""
        return tf.one_hot(inputs, SYMBOLS), tf.cast(targets, tf.int32)


def _place(symbols: tf.Tensor, position: tf.Tensor, symbol: tf.Tensor) -> tf.Tensor:
    """Put `symbol` [batch] into `symbols` [batch, length] at `position` [batch]."""
    steps = tf.range(tf.shape(symbols)[1])
    return tf.where(steps == position[:, None], symbol[:, None], symbols)
