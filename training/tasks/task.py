"""The base of all tasks."""

import abc
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import keras
import tensorflow as tf

from gradkeeper.training._checks import integer
from gradkeeper.training.tasks.epochs import epoch_by_epoch
from gradkeeper.training.tasks.text.vocabulary import Vocabulary


class Task(abc.ABC):
    """Data, the head that a model needs for it, the loss, and the value to beat.

    Attributes:
        name: Name in the table of tasks.
        options: Every option with its value, as JSON-able values:
            `load_task(task.name, seed=task.seed, **task.options)` loads the task again.
        seed: Seed of the training batches.
        data_dir: Folder of tensorflow-datasets; None for its default.
        vocabulary: Symbols behind integer ids; None where the inputs are numbers.

    Sequences of different lengths are padded, and their targets weighted: where an answer is
    per time step, datasets yield (inputs, targets, weights), see `step_weights`.
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
        """The `task` argument of `gradkeeper.zoo.create_model`."""

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one input, without the batch; None for a free length."""

    @property
    @abc.abstractmethod
    def output_units(self) -> int:
        """Size of the model's last layer."""

    @property
    @abc.abstractmethod
    def baseline(self) -> float | None:
        """The loss that a model must fall below to have learned something; None: unknown."""

    @property
    @abc.abstractmethod
    def baseline_label(self) -> str:
        """What the baseline is, with its unit."""

    @property
    def model_options(self) -> dict[str, Any]:
        """Further arguments of `gradkeeper.zoo.create_model` that the data asks for."""
        return {}

    @property
    def report(self) -> str:
        """A summary of the user's file for the terminal; "" where there is no file."""
        return ""

    @property
    def files(self) -> list[Path]:
        """The files of the user that the data were read from."""
        return [Path(self.options["file"]).expanduser()] if "file" in self.options else []

    @property
    def prediction_settings(self) -> dict[str, Any]:
        """Settings that prediction needs besides the model, as JSON-able values.

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
        """For `model.compile`: squared error, or cross-entropy from logits in nats."""
        if self.head == "regression":
            return "mean_squared_error"
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @property
    def metrics(self) -> list[str]:
        """`weighted_metrics` of `model.compile`: accuracy, except for a regression."""
        return [] if self.head == "regression" else ["accuracy"]

    def train_dataset(self, batch_size: int, *, endless: bool = False) -> tf.data.Dataset:
        """Batches for training, the same ones for the same seed.

        (inputs, targets), or (inputs, targets, weights) where sequences are padded.

        Args:
            batch_size: Examples per batch.
            endless: Without it the dataset has the batches of one epoch, `steps_per_epoch` of
                them, and each iteration over it gives the next epoch: other examples of a task
                that draws them, another order of stored examples. So `model.fit` without
                `steps_per_epoch` trains on one epoch per epoch. With it the dataset has the
                batches of all epochs one after the other, for `steps_per_epoch`, and two
                iterations over it are equal.
        """
        if endless:
            return self._batches_from(batch_size, 0)
        return epoch_by_epoch(
            lambda epoch: self._batches_from(batch_size, epoch), self.steps_per_epoch(batch_size)
        )

    @abc.abstractmethod
    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """Batches without end, from the first one of an epoch on."""

    @abc.abstractmethod
    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        """The fixed evaluation split, once, in batches as in training; the last is short."""

    @abc.abstractmethod
    def steps_per_epoch(self, batch_size: int) -> int:
        """How many batches make an epoch."""
