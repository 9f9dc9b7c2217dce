"""Your own file of short texts, such as one name per line, character by character."""

import functools
from os import PathLike
from typing import Any

import numpy as np

from gradkeeper._arguments import integer, number
from gradkeeper.training.tasks.in_memory import InMemoryTask, random_split
from gradkeeper.training.tasks.losses import (
    TokenCrossentropy,
    entropy,
    known_steps,
    padded,
    step_weights,
)
from gradkeeper.training.tasks.text.vocabulary import (
    END,
    PADDING,
    START,
    Vocabulary,
    preprocess,
    read_text,
)


class DelimitedText(InMemoryTask):
    """Predict the next character of short texts of yours, such as one name per line.

    Inputs: int32 [batch, steps], `START` and the characters of an example, then padding (0);
        steps: one more than the longest example has characters.
    Targets: int32 [batch, steps], the characters and `END`, then padding.
    Weights: float32 [batch, steps], see `step_weights`: the loss is in nats per target, including
        the `END` of each example, mean over the split.

    The evaluation examples are drawn at random, because files are often sorted; they are the same
    for every seed. Surrounding white space is removed, and empty examples are dropped.

    Baseline: the entropy −Σ p ln p of the single training targets, in nats per character.

    Args:
        file: A text file in UTF-8.
        delimiter: The text between two examples; by default a line break.
        length: Largest number of characters per example; longer ones are cut and have no `END`.
            None: the length of the longest example.
        preprocessing: Of each example: "none", or "letters": lower-case letters and ` .,!?`.
        evaluation_fraction: Fraction of the examples for evaluation.
        **common: `data_dir` and `seed`, see `Task`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not UTF-8, has fewer than two examples, or contains `PADDING`,
            `START` or `END`.
    """

    name = "delimited_text"
    head = "language_model"
    input_shape = (None,)
    baseline_label = "nats per character: entropy of the single training characters"

    def __init__(
        self,
        *,
        file: str | PathLike[str],
        delimiter: str = "\n",
        length: int | None = None,
        preprocessing: str = "none",
        evaluation_fraction: float = 0.1,
        **common: Any,
    ) -> None:
        share = number("evaluation_fraction", evaluation_fraction, "(0, 1)")
        most = None if length is None else integer("length", length)
        texts = _examples(file, delimiter, preprocessing)
        self.vocabulary: Vocabulary = Vocabulary.from_text(PADDING + START + END + "".join(texts))
        longest = max(map(len, texts))
        self.length = longest if most is None else min(most, longest)
        train, evaluation = random_split(len(texts), share)
        super().__init__(
            self._encoded([texts[number] for number in train]),
            self._encoded([texts[number] for number in evaluation]),
            options={
                "file": str(file),
                "delimiter": delimiter,
                "length": length,
                "preprocessing": preprocessing,
                "evaluation_fraction": share,
            },
            **common,
        )

    @property
    def output_units(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @property
    def model_options(self) -> dict[str, Any]:
        """Model options; token 0 is padding."""
        return {"mask_zero": True}

    @property
    def loss(self) -> TokenCrossentropy:
        """Loss in nats per character."""
        return TokenCrossentropy()

    @functools.cached_property
    def baseline(self) -> float:
        """−Σ p ln p over the training targets."""
        _, targets, weights = self._train
        return entropy(targets[weights > 0])

    def _encoded(self, texts: list[str]) -> tuple[np.ndarray, ...]:
        """Return inputs, targets and weights."""
        steps = self.length + 1
        ids = [self.vocabulary.encode(START + text + END)[: steps + 1] for text in texts]
        inputs = padded([each[:-1] for each in ids], 0, steps=steps)
        following = [each[1:] for each in ids]
        targets = padded(following, 0, steps=steps)
        return inputs, targets, step_weights(known_steps(following, steps=steps))


def _examples(file: str | PathLike[str], delimiter: str, preprocessing: str) -> list[str]:
    if not isinstance(delimiter, str) or not delimiter:
        raise ValueError(
            f"`delimiter` must be a non-empty string. Received: delimiter={delimiter!r}"
        )
    text = read_text(file)
    ours = {PADDING, START, END} & set(text)
    if ours:
        raise ValueError(
            "The text contains characters reserved for padding, start and end of an example. "
            f"Received: {sorted(ours)!r}, file={str(file)!r}"
        )
    examples = [preprocess(part, preprocessing).strip() for part in text.split(delimiter)]
    kept = [example for example in examples if example]
    if len(kept) < 2:
        raise ValueError(
            "At least two examples are needed, one for training and one for evaluation. "
            f"Received: {len(kept)} between delimiters {delimiter!r}, file={str(file)!r}"
        )
    return kept
