"""Japanese vowels, classified by nine speakers."""

import math
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.losses import padded
from gradkeeper.training.tasks.prepare import examples_of, info_of, prepared, url_info

CHANNELS = 12
LONGEST = 29
# Outside the range of the coefficients, which is −2 to 3.
PADDING = -10.0
SPEAKERS = 9
_FOLDER = (
    "https://raw.githubusercontent.com/aeon-toolkit/aeon/v1.5.0/aeon/datasets/data/JapaneseVowels/"
)
TRAIN_URL = f"{_FOLDER}JapaneseVowels_TRAIN.ts"
TEST_URL = f"{_FOLDER}JapaneseVowels_TEST.ts"


class JapaneseVowelsBuilder(tfds.core.GeneratorBasedBuilder):
    """Utterances of "ae" by nine male speakers, 270 for training and 370 for testing.

    M. Kudo, J. Toyama and M. Shimbo, "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20, 1999; doi 10.24432/C5NS47.

    Features: "series", float32 [time, 12], linear prediction cepstrum coefficients, 7 to 29
    steps; "speaker", the class.
    """

    name = "gradkeeper_japanese_vowels"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, UrlInfo]] = {
        TRAIN_URL: url_info(
            487_971,
            "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
            "JapaneseVowels_TRAIN.ts",
        ),
        TEST_URL: url_info(
            649_132,
            "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            "JapaneseVowels_TEST.ts",
        ),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        series = tfds.features.Tensor(shape=(None, CHANNELS), dtype=np.float32, encoding="bytes")
        speaker = tfds.features.ClassLabel(num_classes=SPEAKERS)
        description, homepage = (
            "Nine speakers of two Japanese vowels.",
            "https://doi.org/10.24432/C5NS47",
        )
        return info_of(self, description, homepage, series=series, speaker=speaker)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files = dl_manager.download({"train": TRAIN_URL, "test": TEST_URL})
        return {split: self._generate_examples(Path(file)) for split, file in files.items()}

    def _generate_examples(self, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        lines = file.read_text(encoding="utf-8").splitlines()
        for key, line in enumerate(line for line in lines if line[:1] not in ("", "#", "@")):
            # The channels come one after the other; the speaker, 1 to 9, is last.
            *channels, speaker = line.split(":")
            series = np.array([channel.split(",") for channel in channels], np.float32).T
            yield key, {"series": series, "speaker": int(speaker) - 1}


class JapaneseVowels(InMemoryTask):
    """Identify which of nine male speakers says "ae".

    M. Kudo, J. Toyama and M. Shimbo, "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20, 1999: 270 utterances for
    training, 30 of each speaker, and 370 for evaluation.

    Inputs: float32 [batch, 29, 12], cepstrum coefficients of 7 to 29 steps, padded with −10.
    Targets: int32 [batch], the speaker.

    Baseline: ln 9 nats, for nine classes that are equally frequent in training.

    Args:
        data_dir, seed: See `Task`.
    """

    name = "japanese_vowels"
    head = "classification"
    output_units = SPEAKERS
    input_shape = (LONGEST, CHANNELS)
    baseline = math.log(SPEAKERS)
    baseline_label = "nats of guessing among nine speakers: ln 9"

    def __init__(self, *, data_dir: str | PathLike[str] | None = None, seed: int = 0) -> None:
        builder = prepared(JapaneseVowelsBuilder, data_dir=data_dir)
        train, test = (_examples(builder, split) for split in (tfds.Split.TRAIN, tfds.Split.TEST))
        super().__init__(train, test, options={}, data_dir=data_dir, seed=seed)

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; steps of −10 are padding."""
        return {"mask_value": PADDING}


def _examples(builder: JapaneseVowelsBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
    examples = list(examples_of(builder, split).as_numpy_iterator())
    series = padded([example["series"] for example in examples], PADDING, steps=LONGEST)
    return series, np.array([example["speaker"] for example in examples], np.int32)
