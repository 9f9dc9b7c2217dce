"""Norms of layers, or of groups of layers where a model has many."""

from dataclasses import dataclass

import numpy as np

from gradkeeper.callbacks.recording.history import GradientHistory
from gradkeeper.callbacks.window import Window, layer_of, total_norm

_ROWS = 40


@dataclass(frozen=True)
class LayerGroups:
    """Norms of layers, or of groups of adjacent layers.

    Attributes:
        names: path of the layer; common leading path of several layers, followed by `/…`; or the
            paths of the first and last layer of a group without a common path.
        norms: L2 norms before clipping over all variables of a group, [steps, groups].
        present: True where a variable of the group has a gradient, bool [steps, groups].
    """

    names: list[str]
    norms: np.ndarray
    present: np.ndarray

    @classmethod
    def of(cls, history: GradientHistory | Window, rows: int = _ROWS) -> "LayerGroups":
        """Group the layers into at most `rows` groups, as fine as possible."""
        if len(history.layers) <= rows:
            members = {layer: [layer] for layer in history.layers}
        else:
            members = _by_prefix(history.layers, rows) or _neighbours(history.layers, rows)
        norms, present = history.norms, history.present
        owners = [layer_of(name) for name in history.variables]
        ours = [np.isin(owners, layers) for layers in members.values()]
        if not ours:
            return cls([], np.zeros((len(norms), 0)), np.zeros((len(norms), 0), bool))
        return cls(
            list(members),
            np.stack([total_norm(norms[:, each], present[:, each]) for each in ours], axis=1),
            np.stack([present[:, each].any(axis=1) for each in ours], axis=1),
        )


def _by_prefix(layers: list[str], rows: int) -> dict[str, list[str]] | None:
    """Group layers by the longest leading paths that give at most `rows` groups."""
    for depth in range(max(layer.count("/") for layer in layers), 0, -1):
        groups: dict[str, list[str]] = {}
        for layer in layers:
            groups.setdefault("/".join(layer.split("/")[:depth]), []).append(layer)
        if len(groups) <= rows:
            return {
                path if each == [path] else f"{path}/… ({len(each)})": each
                for path, each in groups.items()
            }
    return None


def _neighbours(layers: list[str], rows: int) -> dict[str, list[str]]:
    parts = np.array_split(np.array(layers, dtype=object), rows)
    return {
        part[0] if len(part) == 1 else f"{part[0]} … {part[-1]} ({len(part)})": list(part)
        for part in parts
    }
