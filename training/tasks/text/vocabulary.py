"""Texts as integer ids: reading, preprocessing and vocabulary."""

import dataclasses
import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

import numpy as np

from gradkeeper._arguments import choice


def read_text(file: str | PathLike[str]) -> str:
    """Read a UTF-8 file; convert line ends to newlines and remove a byte order mark.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not UTF-8.
    """
    path = Path(str(file)).expanduser()
    if not path.is_file():
        problem = "This is a folder, not a file." if path.is_dir() else "The file does not exist."
        raise FileNotFoundError(f"{problem} Received: file={str(file)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The text must be UTF-8; byte {error.start} is not ({error.reason}). "
            f"Received: file={str(file)!r}"
        ) from error


LETTERS = frozenset(string.ascii_lowercase + " .,!?")


def letters_only(text: str) -> str:
    """Reduce a text to lower-case letters a to z and ` .,!?`.

    Unicode normalisation NFD separates accents, which are dropped (é → e); letters become
    lower-case, all other characters are dropped, and a run of white space becomes one space.
    """
    plain = re.sub(r"\s", " ", unicodedata.normalize("NFD", text).lower())
    return re.sub(" +", " ", "".join(filter(LETTERS.__contains__, plain)))


PREPROCESSING: dict[str, Callable[[str], str]] = {"none": str, "letters": letters_only}


def preprocess(text: str, how: str) -> str:
    """Apply the entry `how` of `PREPROCESSING` to `text`; ValueError for an unknown name."""
    choice("preprocessing", how, PREPROCESSING)
    return PREPROCESSING[how](text)


# Characters that texts do not contain; their code points sort before all other characters.
PADDING = "\x00"
START = "\x02"
END = "\x03"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Fixed set of characters; the id of a character is its position.

    Attributes:
        characters: The characters in the order of their code points, each once.
    """

    characters: str

    def __post_init__(self) -> None:
        if list(self.characters) != sorted(set(self.characters)) or not self.characters:
            raise ValueError(
                "`characters` must contain at least one character, each once, in the order of "
                f"code points. Received: characters={self.characters!r}"
            )

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Return the vocabulary of all characters in `text`."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        """Return the number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, int32 [characters].

        Raises:
            ValueError: `text` has characters that the vocabulary lacks.
        """
        known, points = _code_points(self.characters), _code_points(text)
        ids = np.searchsorted(known, points).clip(max=len(known) - 1)
        missing = known[ids] != points
        if missing.any():
            received = "".join(map(chr, np.unique(points[missing])[:20]))
            raise ValueError(
                f"The text has characters that the vocabulary lacks. Known: "
                f"{self.characters!r}. Received: {received!r}"
            )
        return ids.astype(np.int32)

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """Return the text of some ids.

        Raises:
            ValueError: An id is outside [0, len(self)).
        """
        numbers = np.asarray(list(ids) if not isinstance(ids, np.ndarray) else ids, dtype=np.int64)
        outside = (numbers < 0) | (numbers >= len(self))
        if outside.any():
            raise ValueError(
                f"Ids must be in [0, {len(self)}). Received: {numbers[outside][:10].tolist()}"
            )
        return "".join(self.characters[number] for number in numbers)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
