"""Base class of all tasks."""

import abc
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import keras
import tensorflow as tf

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.text.vocabulary import Vocabulary

if keras.backend.backend() != "tensorflow":
    # TensorFlow only reads data, and would take the memory of the GPU from the other backend.
    with suppress(RuntimeError):  # the program has initialized TensorFlow with its own settings
        tf.config.set_visible_devices([], "GPU")

# Training seeds are 0 or larger, so no training batch repeats an evaluation split.
EVALUATION_SEED = -1


class Task(abc.ABC):
    """Data, required head, loss and baseline.

    Sequences of different lengths are padded and their targets weighted: if an answer is per time
    step, datasets yield (inputs, targets, weights), see `step_weights`.

    Attributes:
        name: Name in the registry of tasks.
        options: All options with their values, JSON-serializable:
            `load_task(task.name, seed=task.seed, **task.options)` recreates the task.
        seed: Seed of the training batches.
        data_dir: Data folder of tensorflow-datasets; None for its default. Published data are
            downloaded unless they are prepared there, and evaluation splits of synthetic tasks are
            stored there. Tasks on the user's files do not use it.
        vocabulary: Symbols of the integer ids; None if the inputs are numbers.
    """

    name: ClassVar[str]
    vocabulary: Vocabulary | None = None

    def __init__(
        self,
        *,
        options: dict[str, Any],
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.options = options
        self.data_dir = data_dir
        self.seed = integer("seed", seed, minimum=0)

    @property
    @abc.abstractmethod
    def head(self) -> str:
        """Value for the `task` argument of `gradkeeper.zoo.create_model`."""

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one input, without the batch; None for a variable length."""

    @property
    @abc.abstractmethod
    def output_units(self) -> int:
        """Size of the model's last layer."""

    @property
    @abc.abstractmethod
    def baseline(self) -> float | None:
        """Loss below which a model has learned something; None if unknown."""

    @property
    @abc.abstractmethod
    def baseline_label(self) -> str:
        """Description of the baseline, with its unit."""

    @property
    def model_options(self) -> dict[str, Any]:
        """Further arguments of `gradkeeper.zoo.create_model` that the data need."""
        return {}

    @property
    def report(self) -> str:
        """Summary of the user's file for the terminal; "" without a file."""
        return ""

    @property
    def files(self) -> list[Path]:
        """Files of the user that contain the data."""
        return [Path(self.options["file"]).expanduser()] if "file" in self.options else []

    @property
    def prediction_settings(self) -> dict[str, Any]:
        """Settings that prediction needs besides the model, JSON-serializable.

        A language model of characters needs the vocabulary and the preprocessing.
        """
        if self.vocabulary is None or self.head != "language_model":
            return {}
        return {
            "vocabulary": self.vocabulary.characters,
            "preprocessing": self.options.get("preprocessing", "none"),
        }

    @property
    def loss(self) -> str | keras.losses.Loss:
        """Loss for `model.compile`: squared error, or cross-entropy from logits in nats."""
        if self.head == "regression":
            return "mean_squared_error"
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """New `weighted_metrics` for `model.compile`: accuracy, except for a regression.

        The metrics have variables. Keras would create those of a metric that is given by name in
        the first trace of the train step, and would therefore trace the step twice.
        """
        if self.head == "regression":
            return []
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def train_dataset(self, batch_size: int, *, endless: bool = False) -> tf.data.Dataset:
        """Return training batches, the same ones for the same seed.

        The batches are (inputs, targets), or (inputs, targets, weights) for padded sequences.

        Args:
            batch_size: Examples per batch.
            endless: If False, the dataset contains one epoch, `steps_per_epoch` batches, and each
                iteration over it yields the next epoch: other examples of a generated task,
                another order of stored examples. `model.fit` without `steps_per_epoch` then
                trains on a different epoch each time. If True, the dataset contains all epochs
                one after the other, for use with `steps_per_epoch`, and two iterations over it
                are equal.
        """
        if endless:
            return without_autotuning(self._batches_from(batch_size, 0))
        return epoch_by_epoch(
            lambda epoch: self._batches_from(batch_size, epoch), self.steps_per_epoch(batch_size)
        )

    @abc.abstractmethod
    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """Return an endless dataset that starts with the first batch of an epoch."""

    @abc.abstractmethod
    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        """Return the fixed evaluation split once, batched; the last batch can be smaller."""

    @abc.abstractmethod
    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches per epoch."""


def epoch_by_epoch(
    batches_from: Callable[[tf.Tensor], tf.data.Dataset], steps: int
) -> tf.data.Dataset:
    """Return a dataset of `steps` batches that yields the next epoch at each iteration over it.

    Args:
        batches_from: Function of an epoch, int64 []; returns an endless dataset of batches that
            starts with that epoch's first batch.
        steps: Batches per epoch.
    """
    epochs = itertools.count()

    def next_epoch() -> Iterator[int]:
        yield next(epochs)

    number = tf.TensorSpec([], tf.int64)
    epoch = tf.data.Dataset.from_generator(next_epoch, output_signature=number)
    batches = epoch.flat_map(lambda start: batches_from(start).take(steps))
    counted = tf.data.experimental.assert_cardinality(steps)
    return batches.apply(counted).prefetch(tf.data.AUTOTUNE)


def without_autotuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Disable the autotuning of tf.data, which delays the end of a training by up to a minute.

    The autotuning thread sleeps for a time that doubles up to a minute. A dataset that is read in
    part is freed only after it wakes up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return `batches` with infinite cardinality."""
    known = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(known)
