"""Bach's chorales: prediction of the next frame of 88 keys."""

import functools
import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from gradkeeper._arguments import choice
from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.losses import FrameCrossentropy, known_steps, padded, step_weights
from gradkeeper.training.tasks.prepare import examples_of, info_of, prepared, url_info

KEYS = 88
# Outside the values of a key, which are 0 and 1.
PADDING = -1
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
        URL: url_info(
            407_200,
            "2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91",
            "jsb-chorales-quarter.json",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        frames = tfds.features.Tensor(shape=(None, KEYS), dtype=np.uint8, encoding="bytes")
        description = "Chorales of J. S. Bach, a frame per quarter note."
        homepage = "https://github.com/czhuang/JSB-Chorales-dataset"
        return info_of(self, description, homepage, frames=frames)

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


class JsbChorales(InMemoryTask):
    """Predict the next frame of 88 keys in Bach's chorales.

    N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal dependencies in
    high-dimensional sequences", ICML 2012: 229 chorales for training, 76 for validation, 77
    for testing, of 25 to 160 quarter notes.

    Inputs: float32 [batch, time, 88], all frames except the last, 1 where a key sounds; padded
        with −1.
    Targets: float32 [batch, time, 88], all frames except the first; padded with 0.
    Weights: float32 [batch, time], see `step_weights`.

    Loss: the negative log-likelihood in nats per frame, summed over keys, mean over all frames of
    the split. S. Bai, J. Kolter and V. Koltun, "An empirical evaluation of generic
    convolutional and recurrent networks for sequence modeling", 2018, table 1, report on the
    test split: RNN 8.91, LSTM 8.45, GRU 8.43.

    Baseline: this loss, on the evaluation split, of a model that knows only the frequency of each
    key: p = (s + 1) / (n + 2) for a key that sounds in s of the n training frames (Laplace's
    rule, because some keys sound in one split only).

    Args:
        split: Evaluation split: "test", as in published results, or "validation", for the choice
            of a model.
        data_dir, seed: See `Task`.
    """

    name = "jsb_chorales"
    head = "labelling"
    output_units = KEYS
    input_shape = (None, KEYS)
    baseline_label = "nats per frame, with the frequency of each key as its probability"
    splits: ClassVar[tuple[str, ...]] = (tfds.Split.TEST, tfds.Split.VALIDATION)

    def __init__(
        self,
        *,
        split: str = "test",
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        choice("split", split, self.splits)
        builder = prepared(JsbChoralesBuilder, data_dir=data_dir)
        super().__init__(
            _examples(builder, tfds.Split.TRAIN),
            _examples(builder, split),
            options={"split": split},
            data_dir=data_dir,
            seed=seed,
        )

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; steps of −1 are padding."""
        return {"mask_value": PADDING}

    @property
    def loss(self) -> FrameCrossentropy:
        """Loss in nats per frame."""
        return FrameCrossentropy()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """No accuracy: some four of 88 keys sound, so predicting silence would score 95 %."""
        return []

    @functools.cached_property
    def baseline(self) -> float:
        """−Σ_k [y_k ln p_k + (1 − y_k) ln(1 − p_k)], mean over the evaluation frames."""
        train, evaluation = (
            targets[weights > 0] for _, targets, weights in (self._train, self._evaluation)
        )
        p = (train.sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)
        sounding = evaluation.mean(axis=0, dtype=np.float64)
        return float(-(sounding * np.log(p) + (1 - sounding) * np.log1p(-p)).sum())

    def to_model(self, *stored: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Convert all arrays to float32."""
        return tuple(tf.cast(each, tf.float32) for each in stored)


def _examples(builder: JsbChoralesBuilder, split: str) -> tuple[np.ndarray, ...]:
    """Return inputs and targets as int8, and weights."""
    examples = examples_of(builder, split).as_numpy_iterator()
    chorales = [example["frames"].astype(np.int8) for example in examples]
    steps = max(map(len, chorales)) - 1
    inputs = padded([chorale[:-1] for chorale in chorales], PADDING, steps=steps)
    following = [chorale[1:] for chorale in chorales]
    targets = padded(following, 0, steps=steps)
    return inputs, targets, step_weights(known_steps(following, steps=steps))
