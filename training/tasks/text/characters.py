"""Character-level language modelling: any text, your own text file, Shakespeare's plays."""

import functools
from os import PathLike
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from gradkeeper._arguments import integer, number
from gradkeeper.training.tasks.in_memory import random_order
from gradkeeper.training.tasks.losses import entropy
from gradkeeper.training.tasks.prepare import examples_of, prepared
from gradkeeper.training.tasks.task import Task, endless
from gradkeeper.training.tasks.text.vocabulary import Vocabulary, preprocess, read_text


class CharacterTask(Task):
    """Predict the next character of a text.

    Inputs: int32 [batch, length], ids of consecutive characters.
    Targets: int32 [batch, length], the ids one character later.

    Training: each epoch cuts the text into windows at a random offset and yields every window
    once, in a random order; both are drawn for that epoch. Evaluation: consecutive windows from
    the first character on; a remainder shorter than a window is not used. The vocabulary contains
    the characters of both texts.

    Baseline: the entropy −Σ p ln p of the single characters of the training text, in nats per
    character: the loss of a model that knows only the frequency of each character.

    Args:
        train_text: Text for training.
        evaluation_text: Text for evaluation.
        length: Characters per window.
        preprocessing: "none", or "letters": lower-case letters and ` .,!?` only, see
            `gradkeeper.training.tasks.text.vocabulary`.
        options: Entries of `Task.options` besides `length` and `preprocessing`.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        ValueError: A text is shorter than a window, or the preprocessing is unknown.
    """

    name = "characters"
    head = "language_model"
    baseline_label = "nats per character: entropy of the single training characters"
    input_shape = (None,)

    def __init__(
        self,
        train_text: str,
        evaluation_text: str,
        *,
        length: int = 50,
        preprocessing: str = "none",
        options: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        self.length = integer("length", length)
        own = {"length": self.length, "preprocessing": preprocessing}
        super().__init__(options={**(options or {}), **own}, **common)
        train = self._checked("training", preprocess(train_text, preprocessing))
        evaluation = self._checked("evaluation", preprocess(evaluation_text, preprocessing))
        self.vocabulary: Vocabulary = Vocabulary.from_text(train + evaluation)
        self._train = self.vocabulary.encode(train)
        self._evaluation = self.vocabulary.encode(evaluation)

    @property
    def output_units(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @functools.cached_property
    def baseline(self) -> float:
        """−Σ p ln p over the training characters."""
        return entropy(self._train)

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        # Create the tensor outside a dataset's graph and on the CPU, where tf.data runs.
        with tf.init_scope(), tf.device("CPU"):
            ids = tf.constant(self._train)

        def cut(starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            windows = tf.gather(ids, starts[:, None] + tf.range(self.length + 1))
            return windows[:, :-1], windows[:, 1:]

        starts = tf.data.Dataset.counter(epoch).flat_map(self._starts)
        batches = starts.batch(size, drop_remainder=True).map(cut)
        return endless(batches).prefetch(tf.data.AUTOTUNE)

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        count = (len(self._evaluation) - 1) // self.length
        used = self._evaluation[: count * self.length + 1]
        inputs, targets = used[:-1].reshape(count, -1), used[1:].reshape(count, -1)
        examples = tf.data.Dataset.from_tensor_slices((inputs, targets))
        return examples.batch(integer("batch_size", batch_size)).prefetch(tf.data.AUTOTUNE)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in one pass over the training text."""
        return max(1, self._windows_per_epoch // integer("batch_size", batch_size))

    @property
    def _windows_per_epoch(self) -> int:
        """Number of windows that fit after any offset below `length`; at least 1."""
        return max(1, (len(self._train) - self.length) // self.length)

    def _starts(self, epoch: tf.Tensor) -> tf.data.Dataset:
        """Return the first characters of one epoch's windows, in order."""
        count = self._windows_per_epoch
        offsets = min(self.length, len(self._train) - count * self.length)
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        order_seed, offset_seed = tf.unstack(tf.random.split(seed, 2))
        order = random_order(count, order_seed)
        offset = tf.random.stateless_uniform([], offset_seed, 0, offsets, dtype=tf.int32)
        return tf.data.Dataset.from_tensor_slices(offset + order * self.length)

    def _checked(self, which: str, text: str) -> str:
        if len(text) > self.length:
            return text
        raise ValueError(
            f"The {which} text is {'too short' if text else 'empty'}: a window needs "
            f"length + 1 = {self.length + 1} characters (after preprocessing). "
            f"Received: {len(text)} characters"
        )


class TextFile(CharacterTask):
    """Predict the next character of a text file of yours.

    Inputs, targets and baseline: see `CharacterTask`. The last part of the text is for
    evaluation. For a file of many short examples see `delimited_text`.

    Args:
        file: A text file in UTF-8.
        evaluation_fraction: Fraction of the characters for evaluation, at the end.
        **options: `length` and `preprocessing`, see `CharacterTask`; `data_dir` and `seed`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not UTF-8, or one of its two parts is shorter than a window.
    """

    name = "text_file"

    def __init__(
        self, *, file: str | PathLike[str], evaluation_fraction: float = 0.1, **options: Any
    ) -> None:
        share = number("evaluation_fraction", evaluation_fraction, "(0, 1)")
        text = read_text(file)
        end = len(text) - round(len(text) * share)
        own = {"file": str(file), "evaluation_fraction": share}
        super().__init__(text[:end], text[end:], options=own, **options)


class TinyShakespeare(CharacterTask):
    """Predict the next character of Shakespeare's plays.

    A. Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015: about
    1.1 million characters, 65 distinct ones. 1,003,854 characters are for training and the
    validation split of 55,770 for evaluation, as in the dataset `tiny_shakespeare` of
    tensorflow-datasets. Inputs, targets and baseline: see `CharacterTask`.

    Args:
        training_fraction: Fraction of the training text that is used, from its start. With a small
            fraction, a large model overfits within a short training.
        data_dir: See `Task`.
        **options: `length` and `preprocessing`, see `CharacterTask`; `seed`.
    """

    name = "tiny_shakespeare"

    def __init__(
        self,
        *,
        training_fraction: float = 1.0,
        data_dir: str | PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        share = number("training_fraction", training_fraction, "(0, 1]")
        builder = prepared(tfds.builder, "tiny_shakespeare", data_dir=data_dir)
        train, evaluation = (
            # A split has a single example, the whole text.
            examples_of(builder, split).get_single_element()["text"].numpy().decode()
            for split in (tfds.Split.TRAIN, tfds.Split.VALIDATION)
        )
        # Without a fraction, the options are those of runs before this argument existed.
        own = {} if share == 1 else {"training_fraction": share}
        train = train[: round(len(train) * share)]
        super().__init__(train, evaluation, options=own, data_dir=data_dir, **options)
