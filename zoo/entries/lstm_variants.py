"""Variants of the LSTM."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import CoupledLSTM, MultiplicativeLSTM, OriginalLSTM, PeepholeLSTM
from gradkeeper.zoo.recipe import adding, shakespeare

ENTRIES = (
    ModelInfo.of_layer(
        OriginalLSTM,
        name="original_lstm",
        title="Original LSTM of 1997, without forget gate",
        gradient_property=(
            "Constant error carousel: along the cell state, dc_t/dc_{t-1} is the identity, so that "
            "the gradient neither grows nor decays over any number of steps. The cell never "
            "forgets: c can grow with the length of the sequence and saturate the tanh of the "
            "output. The gradient along paths through h can explode; the paper truncates it."
        ),
        initialization=(
            "Orthogonal recurrent kernel. b_i = -3, so that c does not drift; the paper has -3 and "
            "-6 on the adding problem. Other biases 0; the paper starts some output gates with "
            "negative biases, so that the cells are used one after the other."
        ),
        symbols={"b_i at the start": "input_gate_bias"},
        recipes=(
            adding(
                100,
                units=16,
                input_gate_bias=-3.0,
                learning_rate=2e-3,
                steps=2_000,
                source="Hochreiter, Schmidhuber 1997, section 5.4: input-gate biases -3 and -6",
                own=(
                    "units",
                    "optimizer",
                    "learning_rate",
                    "global_clipnorm",
                    "batch_size",
                    "epochs",
                    "steps_per_epoch",
                ),
            ),
        ),
    ),
    ModelInfo.of_layer(
        PeepholeLSTM,
        name="peephole_lstm",
        title="LSTM with peephole connections from the cell state to the gates",
        gradient_property=(
            "dc_t/dc_{t-1} = diag(f), plus the terms of the peepholes, "
            "p_f * f * (1 - f) * c_{t-1} and p_i * i * (1 - i) * n. With f near 1, the gradient "
            "neither grows nor decays. Large peephole weights and a large c can make it explode "
            "even without the paths through h."
        ),
        initialization=(
            "Peephole weights 0, as in an LSTM. Forget bias 1, orthogonal recurrent kernel."
        ),
        recipes=(adding(100),),
    ),
    ModelInfo.of_layer(
        CoupledLSTM,
        name="coupled_lstm",
        title="LSTM with coupled input and forget gate (CIFG)",
        gradient_property=(
            "As in the LSTM, dc_t/dc_{t-1} contains diag(f). c_t is a weighted mean of c_{t-1} and "
            "n, so that |c| is below 1 and tanh(c) does not saturate."
        ),
        initialization=(
            "Forget bias 1: c is initially a mean over the last few steps. Peephole weights 0, "
            "orthogonal recurrent kernel."
        ),
        recipes=(adding(200),),
    ),
    ModelInfo.of_layer(
        MultiplicativeLSTM,
        name="multiplicative_lstm",
        title="LSTM with a recurrent matrix that depends on the input",
        gradient_property=(
            "Along the cell state, dc_t/dc_{t-1} = diag(f), as in the LSTM. The paths through h "
            "have the factor M diag(W_m x_t) U, which grows with the size of the inputs, so that "
            "large inputs make the gradient explode. Use clipping and scaled inputs."
        ),
        initialization="Forget bias 1; orthogonal U and M, so that only W_m x_t scales m.",
        recipes=(shakespeare(learning_rate=2e-3, length=100, epochs=3),),
    ),
)
