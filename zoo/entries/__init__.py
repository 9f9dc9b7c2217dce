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

# In the order of the gallery.
FAMILIES = {
    "plain": plain,
    "lstm_variants": lstm_variants,
    "gates": gates,
    "layer_norm": layer_norm,
    "stabilised": stabilised,
    "dynamical": dynamical,
    "orthogonal": orthogonal,
    "parallel": parallel,
    "exponential": exponential,
    "attention": attention,
}
