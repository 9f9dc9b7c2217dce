"""Layer calls and their values, as several rules read them."""

import re
from collections.abc import Collection, Sequence

import numpy as np

from gradkeeper.callbacks.rules._series import FirstLevel, Recent, row_quantiles
from gradkeeper.callbacks.window import Window


def layer_of_call(call: str) -> str:
    """Return the path of the layer from the name of a call, such as `dense, call 2`."""
    return re.sub(r"(, call \d+)?(, output \d+)?$", "", call)


def is_hidden(window: Window) -> np.ndarray:
    """Return False for the calls of layers that compute an output of the model, bool [calls].

    If the outputs are unknown, the last call counts as the output.
    """
    layers = [layer_of_call(call) for call in window.activations.names]
    outputs = window.facts.output_layers or layers[-1:]
    return np.array([layer not in outputs for layer in layers], bool)


def has_activation(window: Window, names: Collection[str]) -> np.ndarray:
    """Return True for the calls of layers with one of these activations, bool [calls].

    A name is that of the activation, or the class name of a layer without an activation.
    """
    facts, layers = window.facts, map(layer_of_call, window.activations.names)
    known = [facts.activations.get(each, facts.layer_types.get(each, "")) for each in layers]
    return np.array([each in names for each in known], bool)


class FirstValues:
    """First finite value of each of several series."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def follow(self, names: Sequence[str], values: np.ndarray) -> np.ndarray:
        """Return the first value of each series up to each row, [rows, names]; NaN before it.

        Args:
            names: name of each column.
            values: the next values, [rows, names].
        """
        first = np.full(values.shape, np.nan)
        for column, name in enumerate(names):
            row = 0
            if name not in self._values:
                finite = np.flatnonzero(np.isfinite(values[:, column]))
                if not len(finite):
                    continue
                row = int(finite[0])
                self._values[name] = float(values[row, column])
            first[row:, column] = self._values[name]
        return first


class LatestValues:
    """Latest known value of each of several series."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def follow(self, names: Sequence[str], values: np.ndarray) -> np.ndarray:
        """Return the latest value of each series up to each row, [rows, names]; NaN before any.

        Args:
            names: name of each column.
            values: the next values, [rows, names]; NaN where unknown.
        """
        carried = np.array([[self._values.get(name, np.nan) for name in names]])
        known = np.concatenate([carried, values])
        rows = np.where(np.isnan(known), 0, np.arange(len(known))[:, None])
        latest = np.take_along_axis(known, np.maximum.accumulate(rows, axis=0), axis=0)
        self._values.update(zip(names, latest[-1].tolist(), strict=True))
        return latest[1:]


class Learning:
    """Comparison of the loss with the loss of the first step.

    Args:
        share: share of the first loss below which the loss has decreased.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._first = FirstLevel(1)
        self._latest = Recent(10)

    def follow(self, losses: np.ndarray) -> np.ndarray:
        """Return whether the loss has decreased, bool [steps].

        The loss has decreased if its median over ten steps is not negative and below a share of the
        first loss. A loss that becomes negative may have no lower bound.
        """
        losses = np.where(np.isfinite(losses), losses, np.nan)
        first = self._first.follow(losses)
        latest = row_quantiles(self._latest.through(losses), 0.5)
        return (latest >= 0) & (latest < self._share * first)
