"""Your own TFRecord files."""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.in_memory import random_order
from gradkeeper.training.tasks.task import endless
from gradkeeper.training.tasks.user_data.target import TargetTask

_SHUFFLED = 10_000
_FILES_AT_ONCE = 4


class TFRecord(TargetTask):
    """Predict or classify your own TFRecord files, which can be larger than memory.

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
        **common: `data_dir` and `seed`, see `Task`.

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
        **common: Any,
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
        super().__init__(options=options, **common)
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
        self._set_targets(head, train, evaluation, steps=self._format.steps)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features], or [steps] for tokens."""
        return self._format.input_shape

    @property
    def files(self) -> list[Path]:
        return [Path(name) for name in (*self._files, *self._evaluation_files)]

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options for tokens."""
        size = self._format.vocabulary_size
        return {} if size is None else {"vocabulary_size": size}

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        blocks = tf.data.Dataset.counter(epoch).flat_map(self._blocks)
        return self._parsed(endless(blocks.rebatch(size, drop_remainder=True)))

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        counted = tf.data.experimental.assert_cardinality(len(self._evaluation_targets))
        return self._parsed(records_of(self._evaluation_files).apply(counted).batch(size))

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in one pass over the training files."""
        return max(1, len(self._train_targets) // integer("batch_size", batch_size))

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
        shape = [-1, *self._train_targets.shape[1:]]

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


_READ_AT_ONCE = 1_000
_DTYPES = {"float_list": tf.float32, "int64_list": tf.int64}


def records_of(files: Sequence[str] | tf.Tensor, *, at_once: int | None = None) -> tf.data.Dataset:
    """Return the serialized records of all files; `at_once` interleaves that many files."""
    return tf.data.TFRecordDataset(files, num_parallel_reads=at_once)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFormat:
    """Conversion of records to inputs and targets.

    Attributes:
        specs: The storage format of inputs and targets by name, in this order.
        features: Values per time step.
        vocabulary_size: Number of distinct tokens; None if inputs are numbers.
    """

    specs: dict[str, tf.io.FixedLenFeature]
    features: int
    vocabulary_size: int | None

    @classmethod
    def of_file(
        cls, file: str, *, inputs: str, targets: str, features: int, vocabulary_size: int | None
    ) -> "RecordFormat":
        """Return the format of the first record of a file.

        Raises:
            ValueError: The file has no record, or the record does not match the description.
        """
        stored = _first_example(file)
        specs = {name: _spec(stored, name, file) for name in (inputs, targets)}
        found = cls(specs=specs, features=features, vocabulary_size=vocabulary_size)
        values, dtype = specs[inputs].shape[0], specs[inputs].dtype
        if values % features:
            raise ValueError(
                f"{inputs!r} must have a multiple of `features` values. Received: {values} "
                f"values, features={features}, in file={file!r}"
            )
        if (dtype == tf.int64) != (vocabulary_size is not None) or (
            vocabulary_size is not None and features != 1
        ):
            raise ValueError(
                "Tokens must be int64 values, one per time step, with `vocabulary_size`; numbers "
                f"must be float values, without it. Received: {dtype.name} values of {inputs!r}, "
                f"features={features}, vocabulary_size={vocabulary_size}"
            )
        return found

    @property
    def steps(self) -> int:
        """Number of time steps of the inputs."""
        return int(next(iter(self.specs.values())).shape[0]) // self.features

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[steps, features], or [steps] for tokens."""
        tokens = self.vocabulary_size is not None
        return (self.steps,) if tokens else (self.steps, self.features)

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parse serialized records to inputs [batch, *input_shape] and targets [batch, values]."""
        parsed = tf.io.parse_example(records, self.specs)
        inputs, targets = (parsed[name] for name in self.specs)
        dtype = tf.float32 if self.vocabulary_size is None else tf.int32
        return tf.reshape(tf.cast(inputs, dtype), [-1, *self.input_shape]), targets

    def all_targets(self, files: Sequence[str]) -> np.ndarray:
        """Return all targets: [records, values], or [records] if each is a single integer.

        Raises:
            ValueError: There is no record, or one has other features than the first.
        """
        with _refusing(files):
            batches = records_of(files).batch(_READ_AT_ONCE).map(self.parse)
            parts = [targets for _, targets in batches.as_numpy_iterator()]
        if not parts:
            raise ValueError(f"The files have no records. Received: {', '.join(files)}")
        targets = np.concatenate(parts)
        one_class = targets.dtype.kind == "i" and targets.shape[1] == 1
        return targets[:, 0] if one_class else targets


def _first_example(file: str) -> tf.train.Example:
    with _refusing([file]):
        first = list(records_of([file]).take(1).as_numpy_iterator())
        if first:
            return tf.train.Example.FromString(first[0])
    raise ValueError(f"The file has no records. Received: file={file!r}")


def _spec(example: tf.train.Example, name: str, file: str) -> tf.io.FixedLenFeature:
    stored = example.features.feature
    kind = str(stored[name].WhichOneof("kind")) if name in stored else ""
    values = len(getattr(stored[name], kind).value) if kind in _DTYPES else 0
    if not values:
        found = ", ".join(f"{key!r} ({stored[key].WhichOneof('kind')})" for key in sorted(stored))
        raise ValueError(
            f"Records must have a feature {name!r} of float or int64 values. "
            f"Received: {found or 'no features'} in file={file!r}"
        )
    return tf.io.FixedLenFeature([values], _DTYPES[kind])


@contextmanager
def _refusing(files: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, DecodeError) as error:
        raise ValueError(
            "The files must be TFRecord files of `tf.train.Example` whose records all have as many "
            f"values as the first ({str(error).splitlines()[0]}). Received: {', '.join(files)}"
        ) from error
