"""Conversion of a reference's weights to those of a layer.

The vectors were computed in float64 by PyTorch 2.13.0 and torchrecurrent 0.2.5 with loss
sum(outputs * dout); weights are stored as [gates * units, features], time comes first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VECTORS = Path(__file__).parents[1] / "vectors"
Arrays = Mapping[str, np.ndarray]


def transposed(weights: Arrays) -> dict[str, np.ndarray]:
    """Return the kernels by name, and one bias, the sum of two."""
    return {
        "kernel": weights["weight_ih"].T,
        "recurrent_kernel": weights["weight_hh"].T,
        "bias": weights["bias_ih"] + weights["bias_hh"],
    }


def of_one_bias(gradients: Arrays) -> dict[str, np.ndarray]:
    """Return the gradients by name; the gradient of a sum equals the gradient of either term."""
    return {
        "kernel": gradients["weight_ih"].T,
        "recurrent_kernel": gradients["weight_hh"].T,
        "bias": gradients["bias_ih"],
    }


@dataclass(frozen=True)
class Reference:
    """Reference values for a layer.

    Attributes:
        layer: name of the layer in `gradkeeper.zoo.layers`.
        file: file of the vectors.
        weights: function that converts the reference's weights to the layer's, by name.
        gradients: function that converts the gradients in the same way.
        also: further weights of the layer, with their names in the reference.
        options: function that returns the layer's options from the reference's `hyper` values
            and weights.
        states: names of the reference's states, in the layer's order.
        tied: whether the layer has one state for two equal states of the reference, h and c.
    """

    layer: str
    file: str
    weights: Callable[[Arrays], dict[str, np.ndarray]] = transposed
    gradients: Callable[[Arrays], dict[str, np.ndarray]] = of_one_bias
    also: Mapping[str, str] = field(default_factory=dict)
    options: Callable[[Arrays], dict[str, Any]] = field(default=lambda given: {})
    states: tuple[str, ...] = ("h",)
    tied: bool = False

    def read(self) -> dict[str, np.ndarray]:
        """Return all arrays of the file, by key."""
        with np.load(VECTORS / self.file) as arrays:
            return dict(arrays)

    def all_weights(self, given: Arrays) -> dict[str, np.ndarray]:
        return {**self.weights(given), **self._further(given)}

    def all_gradients(self, given: Arrays) -> dict[str, np.ndarray]:
        return {**self.gradients(given), **self._further(given)}

    def run(self, prefix: str) -> str:
        """Return the key prefix of the run that starts from a given state."""
        return "tied/" if self.tied and prefix else prefix

    def state_gradient(self, arrays: Arrays, run: str, state: str) -> np.ndarray:
        parts = ("h", "c") if self.tied else (state,)
        return sum(arrays[f"{run}grad/{each}0"] for each in parts)

    def _further(self, given: Arrays) -> dict[str, np.ndarray]:
        return {ours: given[theirs].T for ours, theirs in self.also.items()}


def part(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays under a prefix, with the prefix removed from their keys."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
