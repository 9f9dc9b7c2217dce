"""Remedies that several rules advise, chosen by the facts about the run."""

from gradkeeper.callbacks.rules._healthy import Limit
from gradkeeper.callbacks.rules._text import listed
from gradkeeper.callbacks.run_facts import RunFacts


def bounded_activations(facts: RunFacts, layer: str = "") -> str:
    """Bounded activations for a recurrent layer; "" if it has them.

    Args:
        facts: the facts about the run.
        layer: path of a layer; "" for the first recurrent layer to which it applies.
    """
    bounded = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    found = facts.recurrent_layer(layer)
    for each in ([found] if found else []) if layer else facts.recurrent:
        if each.unbounded:
            given = ", ".join(f"{arg}={name!r}" for arg, name in each.unbounded.items())
            wanted = " and ".join(f"{arg}={bounded[arg]!r}" for arg in each.unbounded)
            return (
                f"The recurrent layer {each.path} has {given}, which is not bounded, so that its "
                f"states can grow at every time step: use {wanted}."
            )
    return ""


def recurrent_matrix(facts: RunFacts, layer: str) -> str:
    """A layer with gates or an orthogonal matrix for a layer without; "" for any other layer."""
    found = facts.recurrent_layer(layer)
    if found is None or found.is_gated is not False:
        return ""
    return (
        f"If that does not suffice, use a layer with gates (LSTM, GRU) in place of {found.path}, or "
        "recurrent_initializer='orthogonal'."
    )


def slower(facts: RunFacts, limit: Limit | None) -> str:
    """A lower learning rate, and clipping where the optimizer's step scales with the gradient.

    Args:
        facts: the facts about the run.
        limit: the recommended limit; None if too few steps were healthy.
    """
    lower = "Lower the learning rate tenfold, again if the norm still grows"
    if facts.is_adaptive:
        return (
            f"{lower}. Clipping does not shorten the steps of {listed(facts.optimizers)}, whose "
            "length does not scale with the gradient."
        )
    if limit is None:
        return f"{lower}; then let ClipAdvisor recommend a limit."
    return f"{lower}, and clip ({limit})."


def has_sequences(facts: RunFacts) -> bool:
    """Whether the model may read sequences: it has a layer for them, or is unknown."""
    types = " ".join(facts.layer_types.values())
    return not types or bool(facts.recurrent) or "Embedding" in types or "Attention" in types
