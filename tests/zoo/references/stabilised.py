"""References of cells with bounded or slowed recurrences."""

from references.reference import Arrays, Reference, of_one_bias, transposed


def independent(given: Arrays) -> Arrays:
    return transposed({**given, "weight_hh": given["vector_u"]})


def gradients_of_independent(given: Arrays) -> Arrays:
    return of_one_bias({**given, "weight_hh": given["vector_u"]})


FAST_GRNN = {"also": {"zeta": "zeta", "nu": "nu"}}
IND_RNN = {"weights": independent, "gradients": gradients_of_independent}

REFERENCES = {
    "fast_grnn": Reference("FastGRNN", "FastGRNN_sigmoid.npz", **FAST_GRNN),
    "fast_grnn_tanh": Reference(
        "FastGRNN",
        "FastGRNN.npz",
        options=lambda given: {"recurrent_activation": "tanh"},
        **FAST_GRNN,
    ),
    "fast_rnn": Reference("FastRNN", "FastRNN.npz", also={"alpha": "alpha", "beta": "beta"}),
    "ind_rnn": Reference("IndRNN", "IndRNN_relu.npz", **IND_RNN),
    "ind_rnn_tanh": Reference(
        "IndRNN", "IndRNN.npz", options=lambda given: {"activation": "tanh"}, **IND_RNN
    ),
}
