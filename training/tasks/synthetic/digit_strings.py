"""Strings of digits for an encoder-decoder."""

from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.training.tasks.synthetic.synthetic_task import SyntheticTask
from gradkeeper.training.tasks.text.vocabulary import START, Vocabulary


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

    def __init__(
        self, *, length: int, data_dir: str | PathLike[str] | None = None, seed: int = 0
    ) -> None:
        super().__init__(length=length, data_dir=data_dir, seed=seed)
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
