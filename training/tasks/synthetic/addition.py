"""Sums of two numbers, digit by digit."""

import functools
import math
import string
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.training.tasks.losses import TokenCrossentropy
from gradkeeper.training.tasks.synthetic.digit_strings import DigitStrings
from gradkeeper.training.tasks.text.vocabulary import END, PADDING, START, Vocabulary

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
        data_dir: Data folder of tensorflow-datasets for the evaluation split.
        seed: Seed of the training batches.

    Raises:
        ValueError: `length` is above 9.
    """

    name = "addition"
    vocabulary = Vocabulary(PADDING + START + END + "+" + string.digits)
    baseline_label = "nats per token, the entropy of the sums"

    def __init__(
        self, *, length: int = 3, data_dir: str | PathLike[str] | None = None, seed: int = 0
    ) -> None:
        super().__init__(length=length, data_dir=data_dir, seed=seed)
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
