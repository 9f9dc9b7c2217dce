"""Your own TFRecord files."""

import glob
import os
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradkeeper.training._checks import integer
from gradkeeper.training.tasks.epochs import endless
from gradkeeper.training.tasks.order import random_order
from gradkeeper.training.tasks.own.goal import GoalTask, make_goal
from gradkeeper.training.tasks.own.records import RecordFormat, records_of

_SHUFFLED = 10_000
_FILES_AT_ONCE = 4


class TFRecord(GoalTask):
    """The user's sequences and targets, in files that can be larger than memory.

    Each record is a `tf.train.Example` with two features, and all records must have as many
    values as the first:

        tf.train.Example(features=tf.train.Features(feature={
            "inputs": tf.train.Feature(float_list=tf.train.FloatList(value=x.ravel())),
            "targets": tf.train.Feature(int64_list=tf.train.Int64List(value=[y])),
        }))

    Inputs: float32 [batch, steps, features], the values of "inputs" row by row; or, with
        `vocabulary_size`, int64 values as tokens, int32 [batch, steps].
    Targets: one int64 value for a classification, `steps` of them for a labelling; float values
        for a regression.

    The files are read twice when the task is created, to count records and targets, and then by
    tf.data during the training. Each epoch has the files in a random order drawn for that epoch,
    and records are shuffled in blocks of 10,000. Files prepared by tensorflow-datasets work too
    if their features are numeric: pass the names as `inputs` and `targets`.

    Baseline: for a regression, the mean squared error on the evaluation targets of predicting
    the mean of the training targets; otherwise the entropy −Σ p ln p of the training classes.

    Args:
        files: Pattern of the training files, such as "data/train-*.tfrecord".
        evaluation_files: Pattern of the evaluation files.
        features: Values per time step; 1 for tokens.
        vocabulary_size: Number of distinct tokens.
        head: "regression", "classification" or "labelling"; None: derived from the targets.
        inputs: Name of the feature with the inputs.
        targets: Name of the feature with the targets.
        data_dir: Not used.
        seed: Seed of the training batches.

    Raises:
        FileNotFoundError: No file matches a pattern.
        ValueError: A file is not a TFRecord file, or records do not match the description.
    """

    name = "tfrecord"

    def __init__(
        self,
        *,
        files: str | PathLike[str],
        evaluation_files: str | PathLike[str],
        features: int = 1,
        vocabulary_size: int | None = None,
        head: str | None = None,
        inputs: str = "inputs",
        targets: str = "targets",
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        options = {
            "files": str(files),
            "evaluation_files": str(evaluation_files),
            "features": integer("features", features),
            "vocabulary_size": vocabulary_size,
            "head": head,
            "inputs": inputs,
            "targets": targets,
        }
        super().__init__(options=options, data_dir=data_dir, seed=seed)
        self._files = _matching("files", files)
        self._evaluation_files = _matching("evaluation_files", evaluation_files)
        self._format = RecordFormat.of_file(
            self._files[0],
            inputs=inputs,
            targets=targets,
            features=features,
            vocabulary_size=vocabulary_size,
        )
        train, evaluation = (
            self._format.all_targets(names) for names in (self._files, self._evaluation_files)
        )
        self._goal = make_goal(head, train, evaluation, steps=self._format.steps)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features], or [steps] for tokens."""
        return self._format.input_shape

    @property
    def files(self) -> list[Path]:
        """See `Task.files`."""
        return [Path(name) for name in (*self._files, *self._evaluation_files)]

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options for tokens."""
        size = self._format.vocabulary_size
        return {} if size is None else {"vocabulary_size": size}

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        """See `Task._batches_from`."""
        size = integer("batch_size", batch_size)
        blocks = tf.data.Dataset.counter(epoch).flat_map(self._blocks)
        return self._parsed(endless(blocks.rebatch(size, drop_remainder=True)))

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        """See `Task.evaluation_dataset`."""
        size = integer("batch_size", batch_size)
        counted = tf.data.experimental.assert_cardinality(len(self._goal.evaluation))
        return self._parsed(records_of(self._evaluation_files).apply(counted).batch(size))

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in one pass over the training files."""
        return max(1, len(self._goal.train) // integer("batch_size", batch_size))

    def _blocks(self, epoch: tf.Tensor) -> tf.data.Dataset:
        """Return all training records once, in the order of one epoch, in shuffled blocks."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        files = tf.gather(self._files, random_order(len(self._files), seed))

        def shuffled(number: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
            order_seed = tf.random.fold_in(seed, number)
            return tf.gather(block, random_order(tf.shape(block)[0], order_seed))

        blocks = records_of(files, at_once=_FILES_AT_ONCE).batch(_SHUFFLED).enumerate()
        return blocks.map(shuffled)

    def _parsed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        dtype = tf.float32 if self.head == "regression" else tf.int32
        shape = [-1, *self._goal.train.shape[1:]]

        def parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            inputs, targets = self._format.parse(records)
            return inputs, tf.reshape(tf.cast(targets, dtype), shape)

        parsed = batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE)


def _matching(option: str, pattern: str | PathLike[str]) -> list[str]:
    found = sorted(glob.glob(os.path.expanduser(str(pattern)), recursive=True))
    if not found:
        raise FileNotFoundError(f"No file matches the pattern. Received: {option}={str(pattern)!r}")
    return found
