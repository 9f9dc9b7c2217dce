"""The entries of the zoo by family; each module has a tuple `ENTRIES` of `ModelInfo`."""

from gradkeeper.zoo.entries import (
    attention,
    dynamical,
    exponential,
    gates,
    layer_norm,
    lstm_variants,
    orthogonal,
    parallel,
    plain,
    stabilised,
)

__all__ = [
    "attention",
    "dynamical",
    "exponential",
    "gates",
    "layer_norm",
    "lstm_variants",
    "orthogonal",
    "parallel",
    "plain",
    "stabilised",
]
