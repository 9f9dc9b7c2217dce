"""Preprocessing of texts."""

import re
import string
import unicodedata
from collections.abc import Callable

from gradkeeper.training._checks import unknown_name

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
    if how not in PREPROCESSING:
        raise unknown_name("preprocessing", how, PREPROCESSING)
    return PREPROCESSING[how](text)
