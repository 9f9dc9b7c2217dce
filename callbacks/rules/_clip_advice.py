"""Advice about clipping limits."""

from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks._text import listed
from gradkeeper.callbacks.rules._healthy_steps import Limit
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.window import Window


@dataclass(frozen=True)
class Updates:
    """Steps of a window that applied a finite gradient.

    Attributes:
        steps: train steps, [updates].
        clipped: True where clipping changed a gradient, bool [updates].
        entered: global norm before clipping, [updates].
        shrunk: norm before clipping divided by norm after clipping, [updates]; 1 where clipping
            changed nothing.
        limit: configured clipping limit, [updates]; NaN where no limit is configured.
        learning_rate: learning rate of the optimizer, [updates]; NaN where unknown.
    """

    steps: np.ndarray
    clipped: np.ndarray
    entered: np.ndarray
    shrunk: np.ndarray
    limit: np.ndarray
    learning_rate: np.ndarray

    @classmethod
    def of(cls, window: Window) -> "Updates":
        """Return the updates of the window."""
        gathered = window.scalar("unclipped_norm")
        entered = np.where(np.isnan(gathered), window.global_norm, gathered)
        rows = np.flatnonzero(window.updated.any(axis=1) & np.isfinite(entered))
        with np.errstate(divide="ignore", invalid="ignore"):
            shrunk = 1.0 / window.clip_coefficient[rows]
        return cls(
            window.steps[rows],
            window.clipped[rows].astype(bool),
            entered[rows],
            shrunk,
            window.scalar("clip_limit")[rows],
            window.scalar("learning_rate")[rows],
        )


def bounded_activations(facts: RunFacts, layer: str = "") -> str:
    """Return advice to bound the activations of a recurrent layer; "" if they are bounded.

    Args:
        facts: facts about the run.
        layer: path of a layer; "" for the first recurrent layer with an unbounded activation.
    """
    bounded = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    found = facts.recurrent_layer(layer)
    for each in ([found] if found else []) if layer else facts.recurrent:
        if each.unbounded:
            given = ", ".join(f"{arg}={name!r}" for arg, name in each.unbounded.items())
            wanted = " and ".join(f"{arg}={bounded[arg]!r}" for arg in each.unbounded)
            return (
                f"The recurrent layer {each.path} has {given}, which is unbounded, so its states "
                f"can grow at every time step: use {wanted}."
            )
    return ""


def recurrent_matrix(facts: RunFacts, layer: str) -> str:
    """Return advice for a recurrent layer without gates; "" for any other layer."""
    found = facts.recurrent_layer(layer)
    if found is None or found.is_gated is not False:
        return ""
    return (
        f"If that is not enough, use a layer with gates (LSTM, GRU) in place of {found.path}, or "
        "set recurrent_initializer='orthogonal'."
    )


def slower(facts: RunFacts, limit: Limit | None) -> str:
    """Return advice to lower the learning rate, and to clip if that shortens the steps.

    Args:
        facts: facts about the run.
        limit: recommended limit; None if the run has too few healthy steps.
    """
    lower = "Divide the learning rate by 10, and repeat this if the norm still grows"
    if facts.is_adaptive:
        return (
            f"{lower}. Clipping does not shorten the steps of {listed(facts.optimizers)}: their "
            "length does not scale with the gradient."
        )
    if limit is None:
        return f"{lower}. Then clip at the limit that ClipAdvisor recommends."
    return f"{lower}. Clip the gradient ({limit})."


def has_sequences(facts: RunFacts) -> bool:
    """Return True if a layer of the model reads sequences, or if its layers are unknown."""
    types = " ".join(facts.layer_types.values())
    return not types or bool(facts.recurrent) or "Embedding" in types or "Attention" in types
