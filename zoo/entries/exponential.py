"""Networks with exponential gates."""

from gradkeeper.zoo._model_info import ModelInfo

ENTRIES = (
    ModelInfo(
        name="s_lstm",
        title="LSTM with exponential gates (xLSTM's sLSTM)",
        paper="Beck et al.: xLSTM: Extended Long Short-Term Memory. arXiv 2405.04517",
        year=2024,
        equations=(
            "(i, f, z, o) = W x_t + R h_{t-1} + b\n"
            "c_t = sigmoid(f) * c_{t-1} + exp(i) * tanh(z)\n"
            "n_t = sigmoid(f) * n_{t-1} + exp(i)\n"
            "h_t = sigmoid(o) * c_t / n_t (all exponentials divided by exp(m_t), which cancels)"
        ),
        gradient_property=(
            "As in the LSTM, dc_t/dc_{t-1} = diag(f). The exponential input gate can give a new "
            "input a larger weight than all stored ones. The normalizer keeps h in [-1, 1]. The "
            "gradient along paths through h can still explode, so that clipping is useful."
        ),
        initialization="Forget bias 1, orthogonal recurrent kernel.",
        recipe={"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0},
        layer="gradkeeper.zoo.layers:SLSTM",
        layer_name="s_lstm",
    ),
)
