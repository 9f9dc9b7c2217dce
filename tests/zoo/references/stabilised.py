"""Cells with bounded or slowed recurrences."""

from collections.abc import Mapping

import numpy as np

from references.reference import Arrays, Reference


def with_vector(given: Arrays) -> dict[str, np.ndarray]:
    """u stands where others have a matrix."""
    return {
        "kernel": given["weight_ih"].T,
        "recurrent_kernel": given["vector_u"],
        "bias": given["bias_ih"] + given["bias_hh"],
    }


def gradients_with_vector(given: Arrays) -> dict[str, np.ndarray]:
    return {**with_vector(given), "bias": given["bias_ih"]}


RESIDUAL: Mapping[str, str] = {"alpha": "alpha", "beta": "beta"}
SCALES: Mapping[str, str] = {"zeta": "zeta", "nu": "nu"}

REFERENCES: dict[str, Reference] = {
    "fast_rnn": Reference("FastRNN", "FastRNN.npz", also=RESIDUAL),
    "fast_grnn": Reference("FastGRNN", "FastGRNN_sigmoid.npz", also=SCALES),
    "fast_grnn with tanh in the gate": Reference(
        "FastGRNN",
        "FastGRNN.npz",
        also=SCALES,
        options=lambda given: {"recurrent_activation": "tanh"},
    ),
    "ind_rnn": Reference("IndRNN", "IndRNN_relu.npz", with_vector, gradients_with_vector),
    "ind_rnn with tanh": Reference(
        "IndRNN",
        "IndRNN.npz",
        with_vector,
        gradients_with_vector,
        options=lambda given: {"activation": "tanh"},
    ),
}
