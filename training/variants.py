"""Variants of models for a comparison."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from gradkeeper.training.experiment import Experiment

Models = Sequence[str] | Mapping[str, Mapping[str, Any]]

# Arguments that a comparison sets for all its runs.
_SHARED = {"task", "run_dir", "overwrite", "resume", "allow_changed_data"}
OWN = tuple(name for name in inspect.signature(Experiment).parameters if name not in _SHARED)


def variants(models: Models) -> dict[str, dict[str, Any]]:
    """Return arguments of `Experiment` by label.

    Args:
        models: names of `zoo.list_models()`; or by label `{"model": name}` and further arguments
            of `Experiment`, except those that a comparison sets for all runs.

    Raises:
        ValueError: if there is no model, a name occurs twice, a variant has no model, or a
            variant has an argument that it must not set.
    """
    if isinstance(models, Mapping):
        found = {label: _checked(label, arguments) for label, arguments in models.items()}
    else:
        found = {model: {"model": model} for model in models}
    if not found or len(found) < len(models):
        raise ValueError(f"Name at least one model, each once. Received: models={list(models)!r}")
    return found


def _checked(label: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if "model" not in arguments or not set(arguments).issubset(OWN):
        raise ValueError(
            "A variant needs a `model`, and can have the arguments of `Experiment` that differ "
            f"between runs: {', '.join(OWN[1:])}. Received: {label!r}: {dict(arguments)!r}"
        )
    return dict(arguments)
