"""Parsing of the MODELS argument of `gradkeeper compare`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradkeeper.training.cli.support import pairs

if TYPE_CHECKING:
    from gradkeeper.training.variants import Models

ALL_REMEDIES = "remedies"
_OF_THE_NAME = {"model", "model_options"}
# A comma without a following key is part of a value: a JSON list or object.
_BETWEEN_OPTIONS = re.compile(r",(?=\s*[\w-]+\s*=)")


def models_of(texts: Sequence[str]) -> "Models":
    """Convert the command line's texts to the `models` argument of `compare`.

    Args:
        texts: each one the name of a model; or `name:key=value,key=value`, a variant that is
            labelled with this text; or `remedies`, for all of `REMEDIES`.

    Raises:
        ValueError: if a variant cannot be parsed, or a text occurs twice.
    """
    if len(set(texts)) < len(texts):
        raise ValueError(f"Name each model only once. Received: {' '.join(texts)}")
    if all(":" not in text and text != ALL_REMEDIES for text in texts):
        return texts
    from gradkeeper.training.remedies import REMEDIES

    found: dict[str, Any] = {}
    for text in texts:
        found.update(REMEDIES if text == ALL_REMEDIES else {text: _variant(text)})
    return found


def _variant(text: str) -> dict[str, Any]:
    """Return arguments of `Experiment`; any other key is an option of `zoo.create_model`."""
    from gradkeeper.training.variants import OWN

    name, colon, rest = text.partition(":")
    given = pairs(f"{name}:", _BETWEEN_OPTIONS.split(rest)) if colon else {}
    of_run = {key: given[key] for key in given if key in OWN and key not in _OF_THE_NAME}
    of_model = {key: given[key] for key in given if key not in of_run}
    return {"model": name, "model_options": of_model, **of_run}
