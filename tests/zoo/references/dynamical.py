"""References of cells that discretize differential equations."""

import numpy as np

from references.reference import Arrays, Reference, transposed


def antisymmetric(hyper: Arrays) -> dict[str, float]:
    return {"step_size": float(hyper["epsilon"]), "diffusion": float(hyper["gamma"])}


def gated_weights(given: Arrays) -> dict[str, np.ndarray]:
    """Return the weights; the hidden bias belongs to the candidate only."""
    hidden = given["bias_hh"]
    return transposed({**given, "bias_hh": np.append(0 * hidden, hidden)})


def without_hidden_bias(given: Arrays) -> dict[str, np.ndarray]:
    return transposed({**given, "bias_hh": 0 * given["bias_ih"]})


def oscillators(given: Arrays) -> dict[str, np.ndarray]:
    """Return the kernels by name, and one bias, the sum of three."""
    return transposed({**given, "bias_hh": given["bias_hh"] + given["bias_ch"]})


def with_cell_bias(given: Arrays) -> dict[str, np.ndarray]:
    """Return the weights; the last block of the hidden bias is the bias of the cell kernel."""
    return transposed({**given, "bias_hh": np.append(given["bias_hh"], given["bias_ch"])})


REFERENCES = {
    "antisymmetric_rnn": Reference(
        "AntisymmetricRNN", "AntisymmetricRNN.npz", options=antisymmetric
    ),
    "co_rnn": Reference(
        "CoRNN",
        "coRNN.npz",
        weights=oscillators,
        also={"velocity_kernel": "weight_ch"},
        options=lambda given: {
            "step_size": float(given["dt"]),
            "frequency": float(given["gamma"]),
            "damping": float(given["epsilon"]),
        },
        states=("h", "c"),
    ),
    "gated_antisymmetric_rnn": Reference(
        "GatedAntisymmetricRNN",
        "GatedAntisymmetricRNN.npz",
        weights=gated_weights,
        options=antisymmetric,
    ),
    "lem": Reference(
        "LEM",
        "LEM.npz",
        weights=with_cell_bias,
        also={"cell_kernel": "weight_ch"},
        options=lambda given: {"step_size": float(given["dt"]), "implicit": False},
        states=("h", "c"),
    ),
    "unicornn": Reference(
        "UnICORNN",
        "UnICORNN.npz",
        weights=without_hidden_bias,
        also={"step_kernel": "weight_ch"},
        options=lambda given: {"step_size": float(given["dt"]), "alpha": float(given["alpha"])},
        states=("h", "c"),
    ),
}
