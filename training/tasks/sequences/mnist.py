"""Handwritten digits, read pixel by pixel or row by row."""

import functools
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from gradkeeper._arguments import choice, integer
from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.losses import entropy
from gradkeeper.training.tasks.prepare import examples_of, prepared
from gradkeeper.training.tasks.task import EVALUATION_SEED

SIDE = 28
CLASSES = 10
SIZES = (28, 14, 7)
_READ_AT_ONCE = 1_000


class SequentialMnist(InMemoryTask):
    """Classify a handwritten digit from one pixel per time step.

    Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize recurrent networks of rectified
    linear units", 2015, section 4.2: the images of Y. LeCun and others, "Gradient-based
    learning applied to document recognition", Proceedings of the IEEE 86(11), 1998, line by
    line from the upper left; the dataset `mnist` of tensorflow-datasets, 60,000 images for
    training and 10,000 for evaluation.

    Inputs: float32 [batch, size², 1] in [0, 1].
    Targets: int32 [batch], the digit.

    Baseline: the entropy −Σ p ln p of the training digits, in nats, close to ln 10.

    Args:
        size: Pixels per side. 28: the original images, 784 steps; 14 or 7: each pixel is the
            mean of a square of 2 × 2 or 4 × 4, 196 or 49 steps.
        data_dir, seed: See `Task`.

    Raises:
        ValueError: `size` has another value.
    """

    name = "sequential_mnist"
    head = "classification"
    output_units = CLASSES
    baseline_label = "nats, the entropy of the training digits"

    def __init__(
        self,
        *,
        size: int = SIDE,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.size = choice("size", size, SIZES)
        builder = prepared(tfds.builder, "mnist", data_dir=data_dir)
        train, test = (
            self._examples(builder, split) for split in (tfds.Split.TRAIN, tfds.Split.TEST)
        )
        super().__init__(train, test, options=self._options(), data_dir=data_dir, seed=seed)

    @property
    def input_shape(self) -> tuple[int, int]:
        """[size², 1]."""
        return (self.size**2, 1)

    @functools.cached_property
    def baseline(self) -> float:
        """−Σ p ln p over the training digits."""
        return entropy(self._train[1])

    def to_model(self, *stored: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Convert pixels to float32 in [0, 1], one feature per step."""
        pixels, digits = stored
        return tf.cast(pixels, tf.float32)[..., None] / 255, digits

    def _options(self) -> dict[str, Any]:
        return {"size": self.size}

    def _in_order(self, pixels: np.ndarray) -> np.ndarray:
        """Arrange pixels [images, size²] in the order of the time steps."""
        return pixels

    def _examples(
        self, builder: tfds.core.DatasetBuilder, split: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels, uint8 [images, size²], and digits, int32 [images]."""
        batches = examples_of(builder, split, batch_size=_READ_AT_ONCE)
        parts = [(_shrunk(b["image"], self.size), b["label"]) for b in batches.as_numpy_iterator()]
        pixels, digits = map(np.concatenate, zip(*parts, strict=True))
        return self._in_order(pixels), digits.astype(np.int32)


def _shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Shrink uint8 [images, 28, 28, 1] to [images, size²] by averaging squares."""
    square = SIDE // size
    squares = images.reshape(-1, size, square, size, square)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8).reshape(-1, size**2)


class PermutedMnist(SequentialMnist):
    """Classify a handwritten digit from its pixels in a fixed random order.

    Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize recurrent networks of rectified
    linear units", 2015, section 4.2. All training and evaluation images have the same order.
    Neighbouring pixels are far apart in it, so the task is harder than `sequential_mnist`. Inputs,
    targets and baseline: see `SequentialMnist`.

    Args:
        permutation_seed: Seed of the order, independent of `seed`, so that runs with different
            seeds have the same task.
        **options: See `SequentialMnist`.
    """

    name = "permuted_mnist"

    def __init__(self, *, permutation_seed: int = 0, **options: Any) -> None:
        self.permutation_seed = integer("permutation_seed", permutation_seed, minimum=0)
        super().__init__(**options)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "permutation_seed": self.permutation_seed}

    def _in_order(self, pixels: np.ndarray) -> np.ndarray:
        # RandomState instead of a Generator: its numbers are the same in every NumPy version.
        order = np.random.RandomState(self.permutation_seed).permutation(pixels.shape[1])
        return pixels[:, order]


class NoisePadded(SequentialMnist):
    """Classify a handwritten digit from its rows, which are followed by noise.

    B. Chang, M. Chen, E. Haber and E. Chi, "AntisymmetricRNN: A dynamical system view on
    recurrent neural networks", ICLR 2019, section 5.3. The paper uses images of CIFAR-10 with 32
    rows of 96 numbers, and 1,000 steps; this task uses the images of `SequentialMnist`, so its
    results are not comparable with published ones. Each example has its own noise, in training a
    different one in each epoch. The code of coRNN (tk-rusch/coRNN afd8174,
    noisy_CIFAR10/noisy_cifar10_task.py, lines 39 to 49) repeats one block of noise for all
    images.

    Inputs: float32 [batch, length, size]. First the rows of the image from top to bottom, pixels
        in [0, 1], not standardized; then independent noise from N(0, 1).
    Targets and baseline: see `SequentialMnist`.

    Args:
        length: Number of time steps, at least `size`.
        size: Rows and pixels per row, see `SequentialMnist`.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        ValueError: `size` has another value, or `length` is below `size`.
    """

    name = "noise_padded"

    def __init__(self, *, length: int = 1_000, size: int = SIDE, **common: Any) -> None:
        self.length = integer("length", length, minimum=choice("size", size, SIZES))
        super().__init__(size=size, **common)

    @property
    def input_shape(self) -> tuple[int, int]:
        """[length, size]."""
        return (self.length, self.size)

    def to_model(self, *stored: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Convert pixels to float32 in [0, 1], one row per step."""
        pixels, digits = super().to_model(*stored)
        return tf.reshape(pixels, [-1, self.size, self.size]), digits

    def evaluation_dataset(self, batch_size: int) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        images = super().evaluation_dataset(1)
        return self._with_noise(images, EVALUATION_SEED).batch(size).prefetch(tf.data.AUTOTUNE)

    def _batches_from(self, batch_size: int, epoch: int | tf.Tensor) -> tf.data.Dataset:
        size = integer("batch_size", batch_size)
        images = super()._batches_from(1, epoch)
        examples = self._with_noise(images, self.seed, first=epoch * len(self._train[0]))
        return examples.batch(size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "length": self.length}

    def _with_noise(
        self, images: tf.data.Dataset, seed: int, *, first: int | tf.Tensor = 0
    ) -> tf.data.Dataset:
        """Append the noise of example number `first`, `first` + 1, ... to each image.

        Args:
            images: Batches of one example: the noise does not depend on the batch size.

        Returns:
            The examples, without a batch dimension.
        """

        def add_noise(number: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[Any, ...]:
            image, digit = (part[0] for part in example)
            # Seeds [seed, 0], [seed, 1], ... are those of the orders of the training examples.
            seeds = tf.stack([tf.constant(seed, tf.int64), -1 - number])
            noise = tf.random.stateless_normal([self.length - self.size, self.size], seeds)
            return tf.concat([image, noise], axis=0), digit

        numbered = tf.data.Dataset.zip(tf.data.Dataset.counter(first), images)
        return numbered.map(add_noise, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
