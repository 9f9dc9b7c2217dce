"""Problems of Hochreiter and Schmidhuber with long time lags: adding, copying, temporal order."""

import math
from typing import Any, ClassVar

import tensorflow as tf

from gradkeeper._arguments import choice
from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask, random_steps

# Copying: how many symbols are copied; 0 to 7 are symbols, then a blank and the start signal.
COPIED = 10
SYMBOLS = 8
BLANK = 8
GO = 9
CLASSES = 10
# Temporal order: a, b, c, d are distractors, X and Y determine the class, E starts and B ends.
DISTRACTORS = 4
X = 4
START = 6
END = 7
LETTERS = 8


class Adding(SyntheticTask):
    """The adding problem: add the two marked numbers of a long sequence.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997,
    experiment 4; in the form of Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize
    recurrent networks of rectified linear units", 2015, with numbers from U(0, 1).

    Inputs: float32 [batch, length, 2]. Column 0: numbers from U(0, 1). Column 1: 1 at two
        steps, 0 elsewhere; see `variant`.
    Targets: float32 [batch, 1], the sum of the two marked numbers.

    Baseline: the mean squared error of the best constant. A U(0, 1) number has variance
    ∫(u − 1/2)² du = 1/12. The two numbers are independent, so their sum has variance 2/12 = 1/6,
    which is the error of the best constant, the mean 1.

    Args:
        length: Number of time steps, at least 2.
        variant: "le": one marked step in each half (steps 0 to ⌊length / 2⌋ − 1, and the rest),
            as in the paper of Le and others. "bai": two different steps anywhere, as in the code of
            S. Bai, J. Kolter and V. Koltun, "An empirical evaluation of generic convolutional and
            recurrent networks for sequence modeling", 2018 (locuslab/TCN 2f8c2b8,
            TCN/adding_problem/utils.py, lines 15 to 19). Their published results are for this
            variant.
        **common: `data_dir` and `seed`, see `Task`.
    """

    name = "adding"
    head = "regression"
    output_units = 1
    baseline = 1 / 6
    baseline_label = "mean squared error of always predicting 1"
    minimum_length: ClassVar[int] = 2

    def __init__(self, *, length: int = 100, variant: str = "le", **common: Any) -> None:
        self.variant = choice("variant", variant, ("le", "bai"))
        super().__init__(length=length, options={"variant": variant}, **common)

    @property
    def input_shape(self) -> tuple[int, int]:
        """[length, 2]."""
        return (self.length, 2)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.unstack(tf.random.split(seed, 3))
        numbers = tf.random.stateless_uniform([batch_size, self.length], seeds[0])
        if self.variant == "bai":
            shape = [batch_size, self.length]
            markers = tf.cast(random_steps(shape, 2, seeds[1]), tf.float32)
        else:
            half = self.length // 2
            first = _positions(batch_size, seeds[1], 0, half)
            second = _positions(batch_size, seeds[2], half, self.length)
            markers = tf.one_hot(first, self.length) + tf.one_hot(second, self.length)
        total = tf.reduce_sum(numbers * markers, axis=1, keepdims=True)
        return tf.stack([numbers, markers], axis=-1), total


def _positions(batch_size: int, seed: tf.Tensor, low: int, high: int) -> tf.Tensor:
    return tf.random.stateless_uniform([batch_size], seed, low, high, dtype=tf.int32)


class Copying(SyntheticTask):
    """The copying problem: repeat ten symbols after a long pause.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997;
    in the form of M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural
    networks", ICML 2016, section 5.1. `length` is the pause T.

    Inputs: float32 [batch, T + 20, 10], one-hot: ten symbols from 0 to 7, each equally
        probable; T − 1 blanks (8); the start signal (9); ten blanks, or ten start signals, see
        `variant`.
    Targets: int32 [batch, T + 20]: T + 10 blanks (8), then the ten symbols.

    Baseline: the cross-entropy, in nats per time step, of the best answer without memory: the
    T + 10 blanks are certain and contribute 0, each of the ten symbols contributes ln 8. The
    mean over all steps is 10 ln 8 / (T + 20).

    Args:
        length: The pause T.
        variant: "arjovsky": the last ten inputs are blanks, as in the paper of Arjovsky and
            others. "bai": they are start signals, as in the code of S. Bai, J. Kolter and V.
            Koltun, "An empirical evaluation of generic convolutional and recurrent networks for
            sequence modeling", 2018 (locuslab/TCN 2f8c2b8, TCN/copy_memory/utils.py, lines 15 to
            20). Their published results are for this variant. The baseline is the same.
        **common: `data_dir` and `seed`, see `Task`.
    """

    name = "copying"
    head = "labelling"
    output_units = CLASSES
    baseline_label = "nats per time step without memory: 10 ln 8 / (T + 20)"

    def __init__(self, *, length: int = 100, variant: str = "arjovsky", **common: Any) -> None:
        self.variant = choice("variant", variant, ("arjovsky", "bai"))
        super().__init__(length=length, options={"variant": variant}, **common)

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

        def repeated(symbol: int, steps: int) -> tf.Tensor:
            return tf.fill([batch_size, steps], tf.constant(symbol, tf.uint8))

        pause, go = repeated(BLANK, self.length - 1), repeated(GO, 1)
        end = repeated(GO if self.variant == "bai" else BLANK, COPIED)
        inputs = tf.concat([symbols, pause, go, end], axis=1)
        return inputs, tf.concat([repeated(BLANK, self.length + COPIED), symbols], axis=1)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convert to one-hot inputs and int32 targets."""
        return tf.one_hot(inputs, CLASSES), tf.cast(targets, tf.int32)


class TemporalOrder(SyntheticTask):
    """The temporal order problem: classify the order of two symbols, each X or Y.

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
        return (self.length, LETTERS)

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
        return tf.one_hot(inputs, LETTERS), tf.cast(targets, tf.int32)


def _place(symbols: tf.Tensor, position: tf.Tensor, symbol: tf.Tensor) -> tf.Tensor:
    """Put `symbol` [batch] into `symbols` [batch, length] at `position` [batch]."""
    steps = tf.range(tf.shape(symbols)[1])
    return tf.where(steps == position[:, None], symbol[:, None], symbols)
