"""References of cells with gates."""

import numpy as np

from references.reference import Arrays, Reference, transposed

LSTM_STATES = ("h", "c")


def with_factor_bias(given: Arrays) -> dict[str, np.ndarray]:
    """Return the multiplicative LSTM's weights; its bias is that of m, then sums of two."""
    return transposed({**given, "bias_hh": np.append(0 * given["bias_hh"], given["bias_mh"])})


def of_first_blocks(given: Arrays) -> dict[str, np.ndarray]:
    """Return the weights; the bias contains a second reference bias in its first blocks."""
    missing = len(given["bias_ih"]) - len(given["bias_hh"])
    return transposed({**given, "bias_hh": np.append(given["bias_hh"], np.zeros(missing))})


def of_last_blocks(given: Arrays) -> dict[str, np.ndarray]:
    """Return the weights; the bias contains a second reference bias in its last blocks."""
    missing = len(given["bias_ih"]) - len(given["bias_hh"])
    return transposed({**given, "bias_hh": np.append(np.zeros(missing), given["bias_hh"])})


def of_input_bias(given: Arrays) -> dict[str, np.ndarray]:
    """Return the kernels, and the bias that the reference adds to the inputs."""
    return transposed({**given, "bias_hh": 0})


REFERENCES = {
    "atr": Reference("ATR", "ATR.npz", weights=of_input_bias, also={"recurrent_bias": "bias_hh"}),
    "cfn": Reference(
        "CFN",
        "CFN.npz",
        weights=of_first_blocks,
        options=lambda given: {"candidate_bias": True},
    ),
    "janet": Reference(
        "JANET", "JANET.npz", options=lambda given: {"beta": float(given["beta"])}, tied=True
    ),
    "li_gru": Reference("LiGRU", "LiGRU.npz"),
    "mgu": Reference("MGU", "MGU.npz"),
    "minimal_rnn": Reference(
        "MinimalRNN",
        "MinimalRNN.npz",
        weights=of_input_bias,
        also={"gate_kernel": "weight_mm", "gate_bias": "bias_hh"},
    ),
    "multiplicative_lstm": Reference(
        "MultiplicativeLSTM",
        "MultiplicativeLSTM.npz",
        weights=with_factor_bias,
        also={"multiplicative_kernel": "weight_mh", "recurrent_bias": "bias_hh"},
        options=lambda given: {"factor_bias": True},
        states=LSTM_STATES,
    ),
    "original_lstm": Reference("OriginalLSTM", "OriginalLSTM.npz", states=LSTM_STATES),
    "peephole_lstm": Reference(
        "PeepholeLSTM",
        "PeepholeLSTM.npz",
        also={"peephole_kernel": "weight_ph"},
        states=LSTM_STATES,
    ),
    "ran": Reference("RAN", "RAN.npz", states=LSTM_STATES),
    "star": Reference("STAR", "STAR.npz", weights=of_last_blocks),
    "ugrnn": Reference("UGRNN", "UGRNN.npz"),
}
