"""tensorflow-datasets builder of the Japanese vowels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

CHANNELS = 12
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
        TRAIN_URL: UrlInfo(
            size=tfds.core.utils.Size(487_971),
            checksum="68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
            filename="JapaneseVowels_TRAIN.ts",
        ),
        TEST_URL: UrlInfo(
            size=tfds.core.utils.Size(649_132),
            checksum="b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            filename="JapaneseVowels_TEST.ts",
        ),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        series = tfds.features.Tensor(shape=(None, CHANNELS), dtype=np.float32, encoding="bytes")
        speaker = tfds.features.ClassLabel(num_classes=SPEAKERS)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Nine speakers of two Japanese vowels.",
            homepage="https://doi.org/10.24432/C5NS47",
            features=tfds.features.FeaturesDict({"series": series, "speaker": speaker}),
            disable_shuffling=True,
        )

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
