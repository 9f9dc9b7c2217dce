"""Japanese vowels, classified by nine speakers."""

import math
from os import PathLike
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gradkeeper.training.tasks.builders.japanese_vowels import (
    CHANNELS,
    SPEAKERS,
    JapaneseVowelsBuilder,
)
from gradkeeper.training.tasks.builders.prepare import prepare, quiet
from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.padding import padded

# Outside the range of the coefficients, which is −2 to 3.
PADDING = -10.0
LONGEST = 29


class JapaneseVowels(InMemoryTask):
    """Identify which of nine male speakers says "ae".

    M. Kudo, J. Toyama and M. Shimbo, "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20, 1999: 270 utterances for
    training, 30 of each speaker, and 370 for evaluation.

    Inputs: float32 [batch, 29, 12], cepstrum coefficients of 7 to 29 steps, padded with −10.
    Targets: int32 [batch], the speaker.

    Baseline: ln 9 nats, for nine classes that are equally frequent in training.

    Args:
        data_dir: Data folder of tensorflow-datasets; the files are downloaded unless they are
            prepared there.
        seed: Seed of the training batches.
    """

    name = "japanese_vowels"
    head = "classification"
    output_units = SPEAKERS
    input_shape = (LONGEST, CHANNELS)
    baseline = math.log(SPEAKERS)
    baseline_label = "nats of guessing among nine speakers: ln 9"

    def __init__(self, *, data_dir: str | PathLike[str] | None = None, seed: int = 0) -> None:
        with quiet():
            builder = JapaneseVowelsBuilder(data_dir=data_dir)
        prepare(builder)
        train, test = (_examples(builder, split) for split in (tfds.Split.TRAIN, tfds.Split.TEST))
        super().__init__(train, test, options={}, data_dir=data_dir, seed=seed)

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; steps of −10 are padding."""
        return {"mask_value": PADDING}


def _examples(builder: JapaneseVowelsBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    with quiet():
        examples = list(builder.as_dataset(split=split).as_numpy_iterator())
    series = padded([example["series"] for example in examples], PADDING, steps=LONGEST)
    return series, np.array([example["speaker"] for example in examples], np.int32)
