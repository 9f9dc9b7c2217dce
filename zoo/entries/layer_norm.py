"""Networks with layer normalization inside the cell."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import LayerNormGRU, LayerNormLSTM, LayerNormSimpleRNN
from gradkeeper.zoo.recipe import adding, shakespeare

ENTRIES = (
    ModelInfo.of_layer(
        LayerNormSimpleRNN,
        name="ln_simple_rnn",
        title="Simple recurrent network with layer normalization",
        gradient_property=(
            "Scaling all weights does not change the outputs, so that large weights alone cannot "
            "make activations explode or saturate. The gradient is still a product of one Jacobian "
            "per step and can vanish."
        ),
        initialization="Orthogonal W_h, gain 1, bias 0.",
        symbols={"epsilon": "epsilon"},
        recipes=(shakespeare(learning_rate=1e-2),),
    ),
    ModelInfo.of_layer(
        LayerNormLSTM,
        name="ln_lstm",
        title="LSTM with layer normalization",
        gradient_property=(
            "The cell state is not normalized, so that dc_t/dc_{t-1} contains diag(f) as in the "
            "LSTM. The inputs of the gates have a fixed scale for any size of W_h, so that the "
            "gates do not saturate when the weights grow."
        ),
        initialization="Forget bias 1, gains 1, orthogonal recurrent kernel.",
        symbols={"epsilon": "epsilon"},
        recipes=(
            adding(200),
            shakespeare(),
        ),
    ),
    ModelInfo.of_layer(
        LayerNormGRU,
        name="ln_gru",
        title="GRU with layer normalization",
        gradient_property=(
            "Units with z near 0 copy their state and pass the gradient back unchanged. The "
            "inputs of the gates have a fixed scale for any size of W_h."
        ),
        initialization="Gains 1, biases 0, orthogonal recurrent kernel.",
        symbols={"epsilon": "epsilon"},
        recipes=(
            adding(200),
            shakespeare(),
        ),
    ),
)
