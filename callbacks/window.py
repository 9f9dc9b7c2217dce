"""Consecutive train steps, as rules, sinks and the history see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# A clipped norm differs from the norm before by more than rounding does.
_CLIPPED_BELOW = 1.0 - 1e-4


@dataclass(frozen=True)
class Window:
    """Gradient norms of consecutive train steps, oldest first.

    Attributes:
        steps: train steps, counted from 0, int64 [steps].
        variables: paths of the trainable variables, in the model's order.
        norms: L2 norms before clipping, [steps, variables]; NaN where `present` is False.
        present: whether a gradient reached the optimizer, [steps, variables].
        applied_norms: L2 norms after clipping, [steps, variables]; NaN where `updated` is False.
        updated: whether a gradient was applied, [steps, variables].
    """

    steps: np.ndarray
    variables: tuple[str, ...]
    norms: np.ndarray
    present: np.ndarray
    applied_norms: np.ndarray
    updated: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, rows: slice) -> "Window":
        return Window(
            self.steps[rows],
            self.variables,
            self.norms[rows],
            self.present[rows],
            self.applied_norms[rows],
            self.updated[rows],
        )

    @cached_property
    def layers(self) -> list[str]:
        """Paths of the layers that own a variable, in the model's order."""
        return list(dict.fromkeys(layer_of(variable) for variable in self.variables))

    @cached_property
    def layer_norms(self) -> np.ndarray:
        """L2 norms before clipping over all variables of a layer, [steps, layers]."""
        owners = np.array([self.layers.index(layer_of(name)) for name in self.variables])
        columns = [owners == layer for layer in range(len(self.layers))]
        norms = [total_norm(self.norms[:, c], self.present[:, c]) for c in columns]
        return np.stack(norms, axis=1) if norms else np.zeros((len(self), 0))

    @cached_property
    def global_norm(self) -> np.ndarray:
        """L2 norm before clipping over all variables, [steps]."""
        return total_norm(self.norms, self.present)

    @cached_property
    def applied_global_norm(self) -> np.ndarray:
        """L2 norm after clipping over all variables, [steps]; NaN where nothing was applied."""
        return total_norm(self.applied_norms, self.updated)

    @cached_property
    def clipped(self) -> np.ndarray:
        """Whether the optimizer's clipping changed a gradient, bool [steps]."""
        return np.any(self.applied_norms < self.norms * _CLIPPED_BELOW, axis=1)

    @property
    def clip_fraction(self) -> float:
        """Share of the steps with an update in which clipping changed a gradient, 0 to 1."""
        applied = self.updated.any(axis=1)
        return float(self.clipped[applied].mean()) if applied.any() else 0.0

    @classmethod
    def concatenate(cls, windows: Sequence["Window"]) -> "Window":
        """One window of all steps; a variable that a window lacks is missing in its steps."""
        variables = tuple(dict.fromkeys(name for window in windows for name in window.variables))
        widened = [window._with_variables(variables) for window in windows] or [_EMPTY]
        return cls(
            np.concatenate([window.steps for window in widened]),
            variables,
            np.concatenate([window.norms for window in widened]),
            np.concatenate([window.present for window in widened]),
            np.concatenate([window.applied_norms for window in widened]),
            np.concatenate([window.updated for window in widened]),
        )

    def _with_variables(self, variables: tuple[str, ...]) -> "Window":
        if variables == self.variables:
            return self
        columns = [variables.index(name) for name in self.variables]

        def widened(values: np.ndarray, fill: float | bool) -> np.ndarray:
            wide = np.full((len(self), len(variables)), fill, values.dtype)
            wide[:, columns] = values
            return wide

        return Window(
            self.steps,
            variables,
            widened(self.norms, np.nan),
            widened(self.present, False),
            widened(self.applied_norms, np.nan),
            widened(self.updated, False),
        )


def layer_of(variable: str) -> str:
    """The path of the layer that owns the variable with this path."""
    return variable.rpartition("/")[0] or variable


def total_norm(norms: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Root of the sum of squares over the present columns, [steps]; NaN where there is none."""
    squares = np.square(np.where(present, norms, 0.0).astype(np.float64))
    return np.where(present.any(axis=1), np.sqrt(squares.sum(axis=1)), np.nan)


_EMPTY = Window(
    np.zeros(0, np.int64),
    (),
    *(np.zeros((0, 0), dtype) for dtype in (np.float32, bool, np.float32, bool)),
)
