"""Networks with layer normalization inside the cell."""

from gradkeeper.zoo._model_info import ModelInfo

PAPER = "Ba, Kiros, Hinton: Layer Normalization. arXiv 1607.06450"
RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}
LN = "\nLN(v; a) = a * (v - mean(v)) / sqrt(var(v) + epsilon)"

ENTRIES = (
    ModelInfo(
        name="ln_simple_rnn",
        title="Simple recurrent network with layer normalization",
        paper=PAPER,
        year=2016,
        equations="h_t = tanh(LN(W_x x_t + W_h h_{t-1}; a) + b)" + LN,
        gradient_property=(
            "Scaling all weights does not change the outputs, so that large weights alone cannot "
            "make activations explode or saturate. The gradient is still a product of one Jacobian "
            "per step and can vanish."
        ),
        initialization="Orthogonal W_h, gain 1, bias 0.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LayerNormSimpleRNN",
        layer_name="ln_simple_rnn",
        symbols={"epsilon": "epsilon"},
    ),
    ModelInfo(
        name="ln_lstm",
        title="LSTM with layer normalization",
        paper=PAPER,
        year=2016,
        equations=(
            "(i, f, g, o) = LN(W_h h_{t-1}; a1) + LN(W_x x_t; a2) + b\n"
            "c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)\n"
            "h_t = sigmoid(o) * tanh(LN(c_t; a3) + b3)" + LN
        ),
        gradient_property=(
            "The cell state is not normalized, so that dc_t/dc_{t-1} contains diag(f) as in the "
            "LSTM. The inputs of the gates have a fixed scale for any size of W_h, so that the "
            "gates do not saturate when the weights grow."
        ),
        initialization="Forget bias 1, gains 1, orthogonal recurrent kernel.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LayerNormLSTM",
        layer_name="ln_lstm",
        symbols={"epsilon": "epsilon"},
    ),
    ModelInfo(
        name="ln_gru",
        title="GRU with layer normalization",
        paper=PAPER,
        year=2016,
        equations=(
            "(z, r) = LN(W_h h_{t-1}; a1) + LN(W_x x_t; a2) + b\n"
            "n = tanh(LN(W x_t; a3) + b3 + sigmoid(r) * (LN(U h_{t-1}; a4) + b4))\n"
            "h_t = (1 - sigmoid(z)) * h_{t-1} + sigmoid(z) * n" + LN
        ),
        gradient_property=(
            "Units with z near 0 copy their state and pass the gradient back unchanged. The "
            "inputs of the gates have a fixed scale for any size of W_h."
        ),
        initialization="Gains 1, biases 0, orthogonal recurrent kernel.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LayerNormGRU",
        layer_name="ln_gru",
        symbols={"epsilon": "epsilon"},
    ),
)
