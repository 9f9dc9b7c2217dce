"""Your own text file, character by character."""

from os import PathLike

from gradkeeper.training._checks import fraction
from gradkeeper.training.tasks.text.characters import CharacterTask
from gradkeeper.training.tasks.text.files import read_text


class TextFile(CharacterTask):
    """Predict the next character of any text.

    Inputs, targets and baseline: see `CharacterTask`. The last part of the text is for
    evaluation. For a file of many short examples see `delimited_text`.

    Args:
        file: A text file in UTF-8.
        length: Characters per window.
        preprocessing: "none", or "letters": lower-case letters and ` .,!?` only.
        evaluation_fraction: Fraction of the characters for evaluation, at the end.
        data_dir: Not used.
        seed: Seed of the training batches.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not UTF-8, or one of its two parts is shorter than a window.
    """

    name = "text_file"

    def __init__(
        self,
        *,
        file: str | PathLike[str],
        length: int = 50,
        preprocessing: str = "none",
        evaluation_fraction: float = 0.1,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        share = fraction("evaluation_fraction", evaluation_fraction)
        text = read_text(file)
        end = len(text) - round(len(text) * share)
        super().__init__(
            text[:end],
            text[end:],
            length=length,
            preprocessing=preprocessing,
            options={"file": str(file), "evaluation_fraction": share},
            data_dir=data_dir,
            seed=seed,
        )
