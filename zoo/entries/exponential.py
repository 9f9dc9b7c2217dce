"""Networks with exponential gates."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import SLSTM

ENTRIES = (
    ModelInfo.of_layer(
        SLSTM,
        name="s_lstm",
        title="LSTM with exponential gates (xLSTM's sLSTM)",
        gradient_property=(
            "As in the LSTM, dc_t/dc_{t-1} = diag(f). The exponential input gate can give a new "
            "input a larger weight than all stored ones. The normalizer keeps h in [-1, 1]. The "
            "gradient along paths through h can still explode, so that clipping is useful."
        ),
        initialization="Forget bias 1, orthogonal recurrent kernel.",
    ),
)
