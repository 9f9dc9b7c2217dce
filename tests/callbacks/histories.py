"""Gradient histories made of chosen norms."""

from collections.abc import Sequence

import numpy as np

from gradkeeper.callbacks.window import Window

VARIABLES = ("rnn/cell/kernel", "rnn/cell/bias", "dense/kernel")


def window(
    norms: Sequence[Sequence[float]],
    *,
    applied: Sequence[Sequence[float]] | None = None,
    variables: Sequence[str] = VARIABLES,
    first: int = 0,
    values: dict[str, Sequence[Sequence[float]]] | None = None,
    scalars: dict[str, Sequence[float]] | None = None,
    replica_norms: Sequence[Sequence[Sequence[float]]] | None = None,
) -> Window:
    """Return a window of norms, [steps, variables], with all gradients present and applied."""
    before = np.array(norms, np.float32)
    after = before if applied is None else np.array(applied, np.float32)
    there = np.ones(before.shape, bool)
    more = {name: np.array(value, np.float32) for name, value in (values or {}).items()}
    if "nonfinite" not in more:
        more["nonfinite"] = (~np.isfinite(before)).astype(np.float32)
    replicas = {} if replica_norms is None else {"replica_norms": np.array(replica_norms)}
    return Window(
        np.arange(first, first + len(before)),
        tuple(variables),
        there,
        there.copy(),
        {"norm": before, "applied_norm": after, "max_abs": before.copy(), **more},
        {name: np.array(value, np.float64) for name, value in (scalars or {}).items()},
        **replicas,
    )
