"""What is done to a text before it is cut into characters."""

import re
import string
import unicodedata
from collections.abc import Callable

from gradkeeper.training._checks import unknown_name

LETTERS = frozenset(string.ascii_lowercase + " .,!?")


def letters_only(text: str) -> str:
    """Lower-case letters a to z and ` .,!?`.

    Accents are split off by Unicode normalisation NFD and dropped (é → e), letters are
    lower-cased, every other character is left out, and a run of white space becomes one blank.
    """
    plain = re.sub(r"\s", " ", unicodedata.normalize("NFD", text).lower())
    return re.sub(" +", " ", "".join(filter(LETTERS.__contains__, plain)))


PREPROCESSING: dict[str, Callable[[str], str]] = {"none": str, "letters": letters_only}


def preprocess(text: str, how: str) -> str:
    """`text` after the step of `PREPROCESSING` that `how` names; ValueError if there is none."""
    if how not in PREPROCESSING:
        raise unknown_name("preprocessing", how, PREPROCESSING)
    return PREPROCESSING[how](text)
