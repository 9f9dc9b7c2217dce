"""Made-up gradient histories."""

from collections.abc import Sequence

import numpy as np

from gradkeeper.callbacks.window import Window


def window(
    norms: Sequence[Sequence[float]],
    *,
    applied: Sequence[Sequence[float]] | None = None,
    variables: Sequence[str] = ("rnn/cell/kernel", "rnn/cell/bias", "dense/kernel"),
    first: int = 0,
) -> Window:
    """A window with these norms, [steps, variables]; everything present and applied."""
    before = np.array(norms, np.float32)
    after = before if applied is None else np.array(applied, np.float32)
    there = np.ones(before.shape, bool)
    steps = np.arange(first, first + len(before))
    return Window(steps, tuple(variables), before, there, after, there)
