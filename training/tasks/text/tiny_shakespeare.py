"""Forty thousand lines of Shakespeare."""

from os import PathLike

import tensorflow_datasets as tfds

from gradkeeper.training.tasks.builders.prepare import prepare, quiet
from gradkeeper.training.tasks.text.characters import CharacterTask


class TinyShakespeare(CharacterTask):
    """Predict the next character of Shakespeare's plays.

    A. Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015: about
    1.1 million characters, 65 distinct ones. 1,003,854 characters are for training and the
    validation split of 55,770 for evaluation, as in the dataset `tiny_shakespeare` of
    tensorflow-datasets. Inputs, targets and baseline: see `CharacterTask`.

    Args:
        length: Characters per window.
        preprocessing: "none", or "letters": lower-case letters and ` .,!?` only.
        data_dir: Data folder of tensorflow-datasets; the text is downloaded unless it is
            prepared there.
        seed: Seed of the training batches.
    """

    name = "tiny_shakespeare"

    def __init__(
        self,
        *,
        length: int = 50,
        preprocessing: str = "none",
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        with quiet():
            builder = tfds.builder("tiny_shakespeare", data_dir=data_dir)
        prepare(builder)
        super().__init__(
            _read(builder, tfds.Split.TRAIN),
            _read(builder, tfds.Split.VALIDATION),
            length=length,
            preprocessing=preprocessing,
            data_dir=data_dir,
            seed=seed,
        )


def _read(builder: tfds.core.DatasetBuilder, split: str) -> str:
    """Return the text of a split, which has a single example."""
    return builder.as_dataset(split=split).get_single_element()["text"].numpy().decode()
