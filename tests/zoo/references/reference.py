"""How the weights of a reference become those of a layer.

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
    """Kernels by their names, and one bias that is the sum of two."""
    return {
        "kernel": weights["weight_ih"].T,
        "recurrent_kernel": weights["weight_hh"].T,
        "bias": weights["bias_ih"] + weights["bias_hh"],
    }


def of_one_bias(gradients: Arrays) -> dict[str, np.ndarray]:
    """The same of gradients: that of a sum is that of either part."""
    return {
        "kernel": gradients["weight_ih"].T,
        "recurrent_kernel": gradients["weight_hh"].T,
        "bias": gradients["bias_ih"],
    }


@dataclass(frozen=True)
class Reference:
    """The proof of a layer.

    Attributes:
        layer: its name in `gradkeeper.zoo.layers`.
        file: the vectors.
        weights: makes the layer's weights, by name, from the reference's.
        gradients: makes gradients for the layer's weights from those for the reference's.
        also: further weights of the layer, and what the reference calls them.
        options: of the layer; a callable makes them from the reference's `hyper` values and
            weights.
        states: names of the reference's states, in the layer's order.
        tied: the layer has one state where the reference has two of equal value, h and c.
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
        """All its arrays, by key."""
        with np.load(VECTORS / self.file) as arrays:
            return dict(arrays)

    def all_weights(self, given: Arrays) -> dict[str, np.ndarray]:
        return {**self.weights(given), **self._further(given)}

    def all_gradients(self, given: Arrays) -> dict[str, np.ndarray]:
        return {**self.gradients(given), **self._further(given)}

    def run(self, prefix: str) -> str:
        """Where the run from a state stands in the file."""
        return "tied/" if self.tied and prefix else prefix

    def state_gradient(self, arrays: Arrays, run: str, state: str) -> np.ndarray:
        parts = ("h", "c") if self.tied else (state,)
        return sum(arrays[f"{run}grad/{each}0"] for each in parts)

    def _further(self, given: Arrays) -> dict[str, np.ndarray]:
        return {ours: given[theirs].T for ours, theirs in self.also.items()}


def part(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
