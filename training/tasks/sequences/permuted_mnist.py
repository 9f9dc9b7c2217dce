"""Handwritten digits, read pixel by pixel in a random order."""

from os import PathLike
from typing import Any

import numpy as np

from gradkeeper.training._checks import integer
from gradkeeper.training.tasks.sequences.sequential_mnist import SIDE, SequentialMnist


class PermutedMnist(SequentialMnist):
    """Classify a handwritten digit from its pixels in a fixed random order.

    Q. Le, N. Jaitly and G. Hinton, "A simple way to initialize recurrent networks of rectified
    linear units", 2015, section 4.2. All training and evaluation images have the same order.
    Neighbouring pixels are far apart in it, so the task is harder than `sequential_mnist`. Inputs,
    targets and baseline: see `SequentialMnist`.

    Args:
        size: See `SequentialMnist`.
        permutation_seed: Seed of the order, independent of `seed`, so that runs with different
            seeds have the same task.
        data_dir: See `SequentialMnist`.
        seed: Seed of the training batches.
    """

    name = "permuted_mnist"

    def __init__(
        self,
        *,
        size: int = SIDE,
        permutation_seed: int = 0,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.permutation_seed = integer("permutation_seed", permutation_seed, minimum=0)
        super().__init__(size=size, data_dir=data_dir, seed=seed)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "permutation_seed": self.permutation_seed}

    def _in_order(self, pixels: np.ndarray) -> np.ndarray:
        # RandomState instead of a Generator: its numbers are the same in every NumPy version.
        order = np.random.RandomState(self.permutation_seed).permutation(pixels.shape[1])
        return pixels[:, order]
