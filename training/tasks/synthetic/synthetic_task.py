"""Base class of tasks with randomly generated examples."""

import abc
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from gradkeeper._arguments import integer
from gradkeeper.training.tasks.in_memory import in_order
from gradkeeper.training.tasks.prepare import examples_of, info_of, prepare, quiet
from gradkeeper.training.tasks.task import Task

EVALUATION_EXAMPLES = 1_000
EXAMPLES_PER_EPOCH = 10_000
# Training seeds are 0 or larger, so no training batch repeats the evaluation split.
EVALUATION_SEED = -1


@dataclasses.dataclass(eq=False, kw_only=True)
class EvaluationSplitConfig(tfds.core.BuilderConfig):
    """Configuration of one task with its options.

    Attributes:
        name: Task and options; also the name of the folder on disk.
        examples: The examples (inputs, targets), a finite dataset.
    """

    examples: tf.data.Dataset


class EvaluationSplit(tfds.core.GeneratorBasedBuilder):
    """Fixed examples of one synthetic task, in the split "test"."""

    name = "gradkeeper_evaluation"
    VERSION = tfds.core.Version("1.0.0")
    builder_config: EvaluationSplitConfig

    def _info(self) -> tfds.core.DatasetInfo:
        inputs, targets = self.builder_config.examples.element_spec
        features = {"inputs": _feature(inputs), "targets": _feature(targets)}
        return info_of(self, self.builder_config.description, **features)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {tfds.Split.TEST: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (inputs, targets) in enumerate(self.builder_config.examples.as_numpy_iterator()):
            yield key, {"inputs": inputs, "targets": targets}


def _feature(spec: tf.TensorSpec) -> tfds.features.Tensor:
    # Writing a tensor as bytes is three times as fast as writing a list of numbers.
    return tfds.features.Tensor(
        shape=tuple(spec.shape), dtype=spec.dtype.as_numpy_dtype, encoding="bytes"
    )


class SyntheticTask(Task):
    """Task with a `sample` method and one option, the length.

    Training batches are drawn inside tf.data: batch i from the stateless seed (seed, i), so that
    no batch repeats. The evaluation split is drawn once by the same method, prepared on disk by
    tensorflow-datasets, and read from there afterwards.

    Args:
        length: Number of time steps, or the lag that the task documents.
        **common: `data_dir` and `seed`, see `Task`.
    """

    # Raise the version whenever `sample` draws other numbers: old evaluation splits then stay
    # on disk unused, and another split is prepared.
    version: ClassVar[str] = "1.0.0"
    minimum_length: ClassVar[int] = 1

    def __init__(self, *, length: int = 100, **common: Any) -> None:
        self.length = integer("length", length, minimum=self.minimum_length)
        super().__init__(options={"length": self.length}, **common)

    @abc.abstractmethod
    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a batch in stored form. `seed` is int64 [2]; equal seeds draw equal batches."""

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[Any, ...]:
        """Convert a stored batch to the model's inputs, targets, and optional weights."""
        return inputs, targets

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        first = epoch * self.steps_per_epoch(batch_size)
        batches = self._draw(batch_size, self.seed, first=first)
        return batches.map(self.to_model).prefetch(tf.data.AUTOTUNE)

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        """See `Task.evaluation_dataset`; prepare the split on disk on first use."""
        integer("batch_size", batch_size)
        split = self.evaluation_builder()
        prepare(split)
        examples = tfds.as_numpy(examples_of(split, tfds.Split.TEST, batch_size=-1))
        return in_order((examples["inputs"], examples["targets"]), batch_size, self.to_model)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in 10,000 examples."""
        return math.ceil(EXAMPLES_PER_EPOCH / integer("batch_size", batch_size))

    def evaluation_builder(self) -> EvaluationSplit:
        """Return the tensorflow-datasets builder of the evaluation split."""
        config = EvaluationSplitConfig(
            name=f"{self.name}-length_{self.length}",
            version=self.version,
            description=f"{type(self).__name__}, length {self.length}",
            examples=self._draw(EVALUATION_EXAMPLES, EVALUATION_SEED).take(1).unbatch(),
        )
        with quiet():
            return EvaluationSplit(config=config, data_dir=self.data_dir)

    def _draw(self, batch_size: int, seed: int, *, first: int | tf.Tensor = 0) -> tf.data.Dataset:
        def draw(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.sample(batch_size, tf.stack([tf.constant(seed, tf.int64), index]))

        return tf.data.Dataset.counter(first).map(draw)
