"""The copying problem."""

import math

import tensorflow as tf

from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask

SYMBOLS = 8
BLANK = 8
GO = 9
CLASSES = 10
COPIED = 10


class Copying(SyntheticTask):
    """Repeat ten symbols after a long pause.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997;
    in the form of M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural
    networks", ICML 2016, section 5.1. `length` is the pause T.

    Inputs: float32 [batch, T + 20, 10], one-hot: ten symbols from 0 to 7, each equally
        probable; T − 1 blanks (8); the start signal (9); ten blanks.
    Targets: int32 [batch, T + 20]: T + 10 blanks (8), then the ten symbols.

    Baseline: the cross-entropy, in nats per time step, of the best answer without memory: the
    T + 10 blanks are certain and contribute 0, each of the ten symbols contributes ln 8. The
    mean over all steps is 10 ln 8 / (T + 20).
    """

    name = "copying"
    head = "labelling"
    output_units = CLASSES
    baseline_label = "nats per time step without memory: 10 ln 8 / (T + 20)"

    @property
    def input_shape(self) -> tuple[int, int]:
        """[T + 20, 10]."""
        return (self.length + 2 * COPIED, CLASSES)

    @property
    def baseline(self) -> float:
        """10 ln 8 / (T + 20)."""
        return COPIED * math.log(SYMBOLS) / (self.length + 2 * COPIED)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Symbols are uint8 [batch, T + 20]."""
        drawn = tf.random.stateless_uniform([batch_size, COPIED], seed, 0, SYMBOLS, tf.int32)
        symbols = tf.cast(drawn, tf.uint8)

        def blanks(steps: int) -> tf.Tensor:
            return tf.fill([batch_size, steps], tf.constant(BLANK, tf.uint8))

        go = tf.fill([batch_size, 1], tf.constant(GO, tf.uint8))
        inputs = tf.concat([symbols, blanks(self.length - 1), go, blanks(COPIED)], axis=1)
        return inputs, tf.concat([blanks(self.length + COPIED), symbols], axis=1)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convert to one-hot inputs and int32 targets."""
        return tf.one_hot(inputs, CLASSES), tf.cast(targets, tf.int32)
