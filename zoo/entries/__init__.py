"""Entries of the zoo by family. Each module defines `ENTRIES`, a tuple of `ModelInfo`."""

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
