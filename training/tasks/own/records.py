"""Reading of sequences from TFRecord files."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

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
