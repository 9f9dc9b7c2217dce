"""Variants of models for a comparison, and remedies as variants.

`REMEDIES` are remedies for gradients that vanish or explode through time.

    compare(REMEDIES, "adding", flow=True)
    gradkeeper compare remedies --task adding --flow

The first variant is the reference: a simple network whose recurrent matrix W is uniform in
±1 / √units, like PyTorch's `nn.RNN`. W and the gradient shrink at every step. Each other variant
differs from it by the feature in its label. The leaky ReLU variant also has an orthogonal W, and
explodes: "leaky ReLU clipped" adds clipping to it. The IRNN (ReLU, W starts as the identity) is
clipped as in its paper. Cells of another kind start with the zoo's initialization.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gradkeeper.training.experiment.config import ExperimentConfig

Models = Sequence[str] | Mapping[str, Mapping[str, Any]]

# Arguments of `Experiment` that can differ between the runs of a comparison.
_SETTINGS = [field.name for field in dataclasses.fields(ExperimentConfig) if field.name != "task"]
OWN = (*_SETTINGS, "callbacks")


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


def variant(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `Experiment`; an unknown name is an option of `zoo.create_model`."""
    of_run = {
        name: given[name]
        for name in given
        if name in OWN and name not in ("model", "model_options")
    }
    of_model = {name: given[name] for name in given if name not in of_run}
    return {"model": model, "model_options": of_model, **of_run}


def _checked(label: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if "model" not in arguments or not set(arguments).issubset(OWN):
        raise ValueError(
            "A variant needs a `model`, and can have the arguments of `Experiment` that differ "
            f"between runs: {', '.join(OWN[1:])}. Received: {label!r}: {dict(arguments)!r}"
        )
    return dict(arguments)


_SHRINKING = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
}


def _simple(model: str = "simple_rnn", *, w: Any = _SHRINKING, **options: Any) -> dict[str, Any]:
    return {"model": model, "model_options": {"recurrent_initializer": w, **options}}


_LEAKY = _simple(w="orthogonal", activation="leaky_relu")

REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "nothing done": _simple(),
    "orthogonal W": _simple(w="orthogonal"),
    "leaky ReLU": _LEAKY,
    "leaky ReLU clipped": {**_LEAKY, "global_clipnorm": 1.0},
    "IRNN clipped": {**_simple(w="identity", activation="relu"), "global_clipnorm": 1.0},
    "LayerNorm": _simple("ln_simple_rnn"),
    "residual layers": {**_simple(residual=True), "num_layers": 3},
    "residual steps": {"model": "fast_rnn"},
    "attention": _simple("attention_rnn"),
    "GRU": {"model": "gru"},
    "orthogonal cell": {"model": "orthogonal_rnn"},
    "antisymmetric cell": {
        "model": "gated_antisymmetric_rnn",
        "model_options": {"step_size": 0.1},
    },
}
