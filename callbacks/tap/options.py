"""What a recorder records."""

from dataclasses import dataclass

from gradkeeper.callbacks.matching import matches

# Of how many measured train steps one finds the gradients' largest magnitudes: a power of two.
LARGEST_EVERY = 8


@dataclass(frozen=True)
class Options:
    """Recorders with equal options can stand in for one another.

    Attributes:
        capacity: train steps that can be held between two reads.
        every: of how many train steps one is measured.
        updates: whether norms of updates are measured.
        weights: whether norms of weights are measured.
        largest: whether the largest magnitudes are found in every step that is measured; otherwise
            in one of `LARGEST_EVERY`, and where a norm is not to be had without them.
        histograms: of how many train steps a histogram of magnitudes is taken of one; 0 for none.
        layers: patterns for layers or variables, of which one must match; empty for all.
        switchable: whether measuring can be thinned from outside.
        comparable: whether steps can be measured twice, to learn what measuring costs.
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
        """Whether the variable with this path is to be measured."""
        return not self.layers or any(matches(name, pattern) for pattern in self.layers)
