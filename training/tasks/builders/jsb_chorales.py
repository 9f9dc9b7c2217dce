"""tensorflow-datasets builder of the JSB chorales."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

KEYS = 88
LOWEST_NOTE = 21  # MIDI number of A0, the first key of a piano
URL = (
    "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/"
    "9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d/jsb-chorales-quarter.json"
)


class JsbChoralesBuilder(tfds.core.GeneratorBasedBuilder):
    """382 chorales of Johann Sebastian Bach, a frame per quarter note.

    The split is that of N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal
    dependencies in high-dimensional sequences", ICML 2012: 229, 76 and 77 chorales. The file
    contains lists of MIDI numbers, one per frame.

    Features: "frames", uint8 [time, 88], 1 where a key sounds.
    """

    name = "gradkeeper_jsb_chorales"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, UrlInfo]] = {
        URL: UrlInfo(
            size=tfds.core.utils.Size(407_200),
            checksum="2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91",
            filename="jsb-chorales-quarter.json",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        frames = tfds.features.Tensor(shape=(None, KEYS), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Chorales of J. S. Bach, a frame per quarter note.",
            homepage="https://github.com/czhuang/JSB-Chorales-dataset",
            features=tfds.features.FeaturesDict({"frames": frames}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        chorales = json.loads(Path(dl_manager.download(URL)).read_text(encoding="utf-8"))
        return {
            tfds.Split.TRAIN: self._generate_examples(chorales["train"]),
            tfds.Split.VALIDATION: self._generate_examples(chorales["valid"]),
            tfds.Split.TEST: self._generate_examples(chorales["test"]),
        }

    def _generate_examples(self, chorales: list[list[list[int]]]) -> Iterator[tuple[int, Any]]:
        for key, chorale in enumerate(chorales):
            frames = np.zeros((len(chorale), KEYS), np.uint8)
            for frame, notes in zip(frames, chorale, strict=True):
                frame[np.array(notes, int) - LOWEST_NOTE] = 1
            yield key, {"frames": frames}
