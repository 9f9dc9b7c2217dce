"""Strings of digits for an encoder-decoder: reversal and addition."""

import functools
import math
import string
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.training.tasks.losses import TokenCrossentropy
from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START, Vocabulary


class DigitStrings(SyntheticTask):
    """Map a string to another string.

    Inputs: {"source": int32 [batch, time], "target": int32 [batch, steps]}, ids of
        `vocabulary`. The target is the answer, shifted right by one, with `START` first: the
        decoder is trained by teacher forcing.
    Targets: int32 [batch, steps], the answer.

    To decode answers, use `gradkeeper.zoo.generate` with the id of `START` as `start_token`.
    """

    head = "sequence_to_sequence"
    input_shape = (None,)
    vocabulary: Vocabulary

    def __init__(self, *, length: int, **common: Any) -> None:
        super().__init__(length=length, **common)
        ids = np.zeros(256, np.int32)
        ids[list(self.vocabulary.characters.encode())] = np.arange(len(self.vocabulary))
        self._ids = ids

    @property
    def output_units(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[Any, ...]:
        """Convert strings, bytes in uint8 [batch, time], to ids."""
        source, answer = (
            tf.gather(self._ids, tf.cast(text, tf.int32)) for text in (inputs, targets)
        )
        start = tf.fill([tf.shape(answer)[0], 1], int(self._ids[ord(START)]))
        shifted = tf.concat([start, answer[:, :-1]], axis=1)
        return {"source": source, "target": shifted}, answer


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
        **common: `data_dir` and `seed`, see `Task`.
    """

    name = "reverse"
    vocabulary = Vocabulary(START + string.digits)
    baseline = math.log(10)
    baseline_label = "nats per digit of uniform guessing: ln 10"

    def __init__(self, *, length: int = 8, **common: Any) -> None:
        super().__init__(length=length, **common)

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Strings are uint8 [batch, length]."""
        shape = [batch_size, self.length]
        digits = tf.random.stateless_uniform(shape, seed, 0, 10, dtype=tf.int32)
        text = tf.cast(digits + ord("0"), tf.uint8)
        return text, tf.reverse(text, axis=[1])


# Larger lengths exceed the range of int64 and of exact float64.
LONGEST = 9
_SUMMED_UP = 5


class Addition(DigitStrings):
    """Add two numbers, digit by digit: the answer to 12+34 is 46.

    W. Zaremba and I. Sutskever, "Learning to execute", 2014, the addition task. With
    M = 10^length, both numbers are drawn from 0 to M − 1, and written without leading zeros.

    Inputs and targets: see `DigitStrings`, padded with id 0. time = 2 length + 1, steps =
        length + 2: the digits of the sum and `END`.
    Weights: float32 [batch, steps]; 0 for padding, otherwise steps over the expected tokens of
        an answer, so that the loss is in nats per token.

    Baseline: the loss of a model that does not read the source but knows the distribution of the
    sums. The sum s occurs in c(s) = min(s + 1, 2M − 1 − s) of M² cases, and its entropy is
    H = −Σ c/M² ln(c/M²) nats. For large M this approaches ln M + 1/2, the entropy of a triangular
    distribution; at length 6 the difference is 1e-9. An answer has
    1 + Σ_{d=1}^{length} P(s ≥ 10^d) digits on average, and `END`, where
    P(s ≥ 10^d) = 1 − 10^d (10^d + 1) / 2M². The baseline is the quotient.

    Args:
        length: Largest number of digits, up to 9.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        ValueError: `length` is above 9.
    """

    name = "addition"
    vocabulary = Vocabulary(PADDING + START + END + "+" + string.digits)
    baseline_label = "nats per token, the entropy of the sums"

    def __init__(self, *, length: int = 3, **common: Any) -> None:
        super().__init__(length=length, **common)
        if length > LONGEST:
            raise ValueError(f"`length` must be at most {LONGEST}. Received: length={length!r}")

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; token 0 is padding."""
        return {"mask_zero": True}

    @property
    def loss(self) -> TokenCrossentropy:
        """Loss in nats per token."""
        return TokenCrossentropy()

    @functools.cached_property
    def baseline(self) -> float:
        """Entropy of the sum over the expected number of tokens."""
        return self._entropy() / self.tokens_per_answer

    @property
    def tokens_per_answer(self) -> float:
        """Expected number of digits of the sum, plus one for `END`."""
        tens = 10.0 ** np.arange(1, self.length + 1)
        longer = 1 - tens * (tens + 1) / (2 * 10.0 ** (2 * self.length))
        return 2 + float(longer.sum())

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Strings are uint8 [batch, time] and [batch, steps]."""
        shape, most = [2, batch_size], 10**self.length
        numbers = tf.random.stateless_uniform(shape, seed, 0, most, dtype=tf.int64)
        first, second = tf.unstack(tf.strings.as_string(numbers))
        total = tf.strings.as_string(tf.reduce_sum(numbers, axis=0))
        # `decode_raw` pads shorter strings with zero bytes, which equal `PADDING`.
        source = tf.io.decode_raw(first + "+" + second, tf.uint8, fixed_length=2 * self.length + 1)
        answer = tf.io.decode_raw(total + END, tf.uint8, fixed_length=self.length + 2)
        return source, answer

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[Any, ...]:
        """See `DigitStrings.to_model`; also return the weights."""
        strings, answer = super().to_model(inputs, targets)
        weight = (self.length + 2) / self.tokens_per_answer
        return strings, answer, tf.cast(answer != 0, tf.float32) * weight

    def _entropy(self) -> float:
        """Return the entropy of the sum, in nats."""
        if self.length > _SUMMED_UP:
            return self.length * math.log(10) + 0.5
        most = 10**self.length
        rising = np.arange(1, most + 1)
        p = np.concatenate([rising, rising[-2::-1]]) / most**2
        return float(-(p * np.log(p)).sum())
