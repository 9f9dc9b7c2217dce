"""The selective copying problem."""

import math
from typing import Any

import tensorflow as tf

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask, random_steps

BLANK = 0


class SelectiveCopying(SyntheticTask):
    """The selective copying problem: repeat a few tokens that are scattered among blanks.

    A. Gu and T. Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023;
    in the form of the code state-spaces/s4 d27bdf9, src/dataloaders/datasets/copying.py,
    `torch_copying_data` with `variable=True`. The reproduction MinhZou/selective-copying-mamba
    76160cf has L = 4096, M = 16 and A = 16. The steps of the tokens are random, so that a model
    must select by the token what to store.

    L is `length`, M is `symbols`, A is `alphabet`.

    Inputs: int32 [batch, L + 2 M]. The first L + M steps contain M tokens, each uniform from 1 to
        A − 2, at M random steps, and blanks (0) at the L others. The last M steps contain the
        answer signal (A − 1).
    Targets: int32 [batch, L + 2 M]: the M tokens in their order at the last M steps, 0 before.
    Weights: float32 [batch, L + 2 M]: (L + 2 M) / M at the last M steps, 0 before, so that loss
        and accuracy are means over the answers alone.

    Baseline: ln(A − 2) nats per answer, the cross-entropy of the best constant for A − 2 equally
    probable tokens.

    Args:
        length: Number of blanks.
        symbols: Number of tokens to repeat.
        alphabet: Number of distinct inputs, with the blank and the answer signal; at least 4.
        **common: `data_dir` and `seed`, see `Task`.
    """

    name = "selective_copying"
    head = "labelling"

    def __init__(
        self, *, length: int = 64, symbols: int = 4, alphabet: int = 10, **common: Any
    ) -> None:
        self.symbols = integer("symbols", symbols)
        self.alphabet = integer("alphabet", alphabet, minimum=4)
        options = {"symbols": self.symbols, "alphabet": self.alphabet}
        super().__init__(length=length, options=options, **common)

    @property
    def input_shape(self) -> tuple[int]:
        """[L + 2 M]."""
        return (self.length + 2 * self.symbols,)

    @property
    def output_units(self) -> int:
        """The size of the alphabet."""
        return self.alphabet

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; the inputs are tokens of the alphabet."""
        return {"vocabulary_size": self.alphabet}

    @property
    def baseline(self) -> float:
        """ln(A − 2)."""
        return math.log(self.alphabet - 2)

    @property
    def baseline_label(self) -> str:
        """Description of the baseline."""
        return f"nats per answer of guessing among {self.alphabet - 2} tokens"

    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SyntheticTask.sample`. Both parts are int32 [batch, L + 2 M]."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        shape = [batch_size, self.length + self.symbols]
        tokens = tf.random.stateless_uniform(shape, seeds[0], 1, self.alphabet - 1, tf.int32)
        kept = random_steps(shape, self.symbols, seeds[1])
        answer = tf.reshape(tf.boolean_mask(tokens, kept), [batch_size, self.symbols])
        signals = tf.fill([batch_size, self.symbols], self.alphabet - 1)
        inputs = tf.concat([tf.where(kept, tokens, BLANK), signals], axis=1)
        return inputs, tf.concat([tf.zeros(shape, tf.int32), answer], axis=1)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Add the weights."""
        weight = self.input_shape[0] / self.symbols
        return inputs, targets, tf.cast(targets > 0, tf.float32) * weight
