"""Recording options."""

from dataclasses import dataclass

from gradkeeper.callbacks.matching import matches

# The largest magnitudes are computed in one of this many measured steps. A power of two.
LARGEST_EVERY = 8


@dataclass(frozen=True)
class Options:
    """Recording options. Recorders with equal options are interchangeable.

    Attributes:
        capacity: number of train steps that fit in the ring buffers between two reads.
        every: measure one of this many train steps.
        updates: whether the norms of updates are measured.
        weights: whether the norms of weights are measured.
        largest: whether the largest magnitudes are computed in every measured step; otherwise, in
            one of `LARGEST_EVERY` steps and where a norm requires them.
        histograms: record a histogram of magnitudes in one of this many train steps; 0 for none.
        layers: patterns for layers or variables, of which one must match; empty for all.
        switchable: whether the sampling period can be changed during training.
        comparable: whether steps can be measured twice, to determine the cost of measuring.
    """

    capacity: int
    every: int = 1
    updates: bool = False
    weights: bool = False
    largest: bool = False
    histograms: int = 0
    layers: tuple[str, ...] = ()
    switchable: bool = False
    comparable: bool = False

    def selects(self, name: str) -> bool:
        """Return True if the variable with this path is recorded."""
        return not self.layers or any(matches(name, pattern) for pattern in self.layers)
