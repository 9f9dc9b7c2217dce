"""`gradkeeper compare`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkeeper.training.cli import options
from gradkeeper.training.cli.support import console, loading, pairs
from gradkeeper.training.experiment.config import CLIPS

if TYPE_CHECKING:
    from gradkeeper.training.comparison.model_variants import Models

ALL_REMEDIES = "remedies"
# A comma without a following key is part of a value: a JSON list or object.
_BETWEEN_OPTIONS = re.compile(r",(?=\s*[\w-]+\s*=)")


@options.takes(
    options.argument(
        "models",
        list[str],
        "Models of the zoo. Write NAME:KEY=VALUE,KEY=VALUE to set options of one model "
        "(simple_rnn:activation=relu), where KEY is an argument of zoo.create_model or "
        "Experiment. Write remedies for a predefined set of variants.",
    ),
    *options.setting_options(without=["model_options", "recipe"], has_recipes=False),
    options.RUN_DIR,
    options.OVERWRITE,
)
def compare(*, models: list[str], run_dir: Path | None, overwrite: bool, **given: Any) -> None:
    """Train MODELS on one task, without and with clipping, and compare them.

    The clipping is global_clipnorm=1 unless you set another. If any model has a clip argument in
    its KEY=VALUE options (as some remedies have), every model is trained once.
    """
    settings = options.settings_of(given)
    options.require_task(settings)
    with loading():
        from gradkeeper.training import compare as run_all
    clip = {name: settings.pop(name) for name in CLIPS if name in settings}
    if clip:
        settings["clippings"] = ({}, clip)
    title = ", ".join(models)
    comparison = run_all(
        models_of(models), name=title, run_dir=run_dir, overwrite=overwrite, **settings
    )
    console.print()
    console.print(comparison.table())
    for path in comparison.files:
        console.print(f"{path}", soft_wrap=True, markup=False)


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
    from gradkeeper.training.comparison import model_variants

    found: dict[str, Any] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        given = pairs(f"{name}:", _BETWEEN_OPTIONS.split(rest)) if colon else {}
        variants = {text: model_variants.variant(name, given)}
        found.update(model_variants.REMEDIES if text == ALL_REMEDIES else variants)
    return found
