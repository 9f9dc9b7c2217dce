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
from gradkeeper.training.tasks.task import EVALUATION_SEED, Task

EVALUATION_EXAMPLES = 1_000
EXAMPLES_PER_EPOCH = 10_000


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
    """Task with a `sample` method and options, one of them the length.

    Training batches are drawn inside tf.data: batch i from the stateless seed (seed, i), so that
    no batch repeats. The evaluation split is drawn once by `sample_evaluation`, prepared on disk by
    tensorflow-datasets, and read from there afterwards. Each combination of options has its own
    split.

    Args:
        length: Number of time steps, or the lag that the task documents.
        options: Further options of the task with their values, see `Task`.
        **common: `data_dir` and `seed`, see `Task`.
    """

    # Raise the version whenever `sample` draws other numbers: old evaluation splits then stay
    # on disk unused, and another split is prepared.
    version: ClassVar[str] = "1.0.0"
    minimum_length: ClassVar[int] = 1

    def __init__(
        self, *, length: int = 100, options: dict[str, Any] | None = None, **common: Any
    ) -> None:
        self.length = integer("length", length, minimum=self.minimum_length)
        super().__init__(options={"length": self.length, **(options or {})}, **common)

    @abc.abstractmethod
    def sample(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw a batch in stored form. `seed` is int64 [2]; equal seeds draw equal batches."""

    def sample_evaluation(self, batch_size: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw the evaluation examples; by default as `sample` does."""
        return self.sample(batch_size, seed)

    def to_model(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[Any, ...]:
        """Convert a stored batch to the model's inputs, targets, and optional weights."""
        return inputs, targets

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        def draw(number: tf.Tensor) -> tuple[Any, ...]:
            seed = tf.stack([tf.constant(self.seed, tf.int64), number])
            return self.to_model(*self.sample(batch_size, seed))

        first = epoch * self.steps_per_epoch(batch_size)
        return tf.data.Dataset.counter(first).map(draw).prefetch(tf.data.AUTOTUNE)

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
        seed = tf.data.Dataset.from_tensors(tf.constant([EVALUATION_SEED, 0], tf.int64))
        drawn = seed.map(lambda seed: self.sample_evaluation(EVALUATION_EXAMPLES, seed))
        config = EvaluationSplitConfig(
            name="-".join([self.name, *(f"{key}_{value}" for key, value in self.options.items())]),
            version=self.version,
            description=f"{type(self).__name__}, {self.options}",
            examples=drawn.unbatch(),
        )
        with quiet():
            return EvaluationSplit(config=config, data_dir=self.data_dir)


def random_steps(shape: list[int], count: int, seed: tf.Tensor) -> tf.Tensor:
    """Return bool `shape` [batch, steps], True at `count` random different steps per example."""
    return tf.argsort(tf.random.stateless_uniform(shape, seed)) < count
