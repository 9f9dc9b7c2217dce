"""Variants of the LSTM."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}

ENTRIES = (
    ModelInfo(
        name="original_lstm",
        title="Original LSTM of 1997, without forget gate",
        paper="Hochreiter, Schmidhuber: Long Short-Term Memory. Neural Computation 9",
        year=1997,
        equations=(
            "i, o = sigmoid(W_i x_t + U_i h_{t-1} + b_i), likewise o\n"
            "n = tanh(W_n x_t + U_n h_{t-1} + b_n)\n"
            "c_t = c_{t-1} + i * n\n"
            "h_t = o * tanh(c_t)"
        ),
        gradient_property=(
            "Constant error carousel: along the cell state, dc_t/dc_{t-1} is the identity, so that "
            "the gradient neither grows nor decays over any number of steps. The cell never "
            "forgets: c can grow with the length of the sequence and saturate the tanh of the "
            "output. The gradient along paths through h can explode; the paper truncates it."
        ),
        initialization=(
            "Orthogonal recurrent kernel, biases 0. The paper initializes some output gates with "
            "negative biases, so that the cells are used one after the other."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:OriginalLSTM",
        layer_name="original_lstm",
    ),
    ModelInfo(
        name="peephole_lstm",
        title="LSTM with peephole connections from the cell state to the gates",
        paper=(
            "Gers, Schraudolph, Schmidhuber: Learning Precise Timing with LSTM Recurrent "
            "Networks. Journal of Machine Learning Research 3"
        ),
        year=2002,
        equations=(
            "i, f = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i), likewise f\n"
            "n = tanh(W_n x_t + U_n h_{t-1} + b_n)\n"
            "c_t = f * c_{t-1} + i * n\n"
            "o = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)\n"
            "h_t = o * tanh(c_t)"
        ),
        gradient_property=(
            "dc_t/dc_{t-1} = diag(f), plus the terms of the peepholes, "
            "p_f * f * (1 - f) * c_{t-1} and p_i * i * (1 - i) * n. With f near 1, the gradient "
            "neither grows nor decays. Large peephole weights and a large c can make it explode "
            "even without the paths through h."
        ),
        initialization=(
            "Peephole weights 0, as in an LSTM. Forget bias 1, orthogonal recurrent kernel."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:PeepholeLSTM",
        layer_name="peephole_lstm",
    ),
    ModelInfo(
        name="coupled_lstm",
        title="LSTM with coupled input and forget gate (CIFG)",
        paper=(
            "Greff, Srivastava, Koutník, Steunebrink, Schmidhuber: LSTM: A Search Space Odyssey. "
            "arXiv 1503.04069"
        ),
        year=2015,
        equations=(
            "f = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)\n"
            "n = tanh(W_n x_t + U_n h_{t-1} + b_n)\n"
            "c_t = f * c_{t-1} + (1 - f) * n\n"
            "o = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)\n"
            "h_t = o * tanh(c_t)"
        ),
        gradient_property=(
            "As in the LSTM, dc_t/dc_{t-1} contains diag(f). c_t is a weighted mean of c_{t-1} and "
            "n, so that |c| is below 1 and tanh(c) does not saturate."
        ),
        initialization=(
            "Forget bias 1: c is initially a mean over the last few steps. Peephole weights 0, "
            "orthogonal recurrent kernel."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:CoupledLSTM",
        layer_name="coupled_lstm",
    ),
    ModelInfo(
        name="multiplicative_lstm",
        title="LSTM with a recurrent matrix that depends on the input",
        paper=(
            "Krause, Lu, Murray, Renals: Multiplicative LSTM for sequence modelling. arXiv "
            "1609.07959"
        ),
        year=2016,
        equations=(
            "m = (W_m x_t) * (U h_{t-1})\n"
            "i, f, o = sigmoid(W_i x_t + M_i m + b_i), likewise f, o\n"
            "n = tanh(W_n x_t + M_n m + b_n)\n"
            "c_t = f * c_{t-1} + i * n\n"
            "h_t = o * tanh(c_t)"
        ),
        gradient_property=(
            "Along the cell state, dc_t/dc_{t-1} = diag(f), as in the LSTM. The paths through h "
            "have the factor M diag(W_m x_t) U, which grows with the size of the inputs, so that "
            "large inputs make the gradient explode. Use clipping and scaled inputs."
        ),
        initialization="Forget bias 1; orthogonal U and M, so that only W_m x_t scales m.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MultiplicativeLSTM",
        layer_name="multiplicative_lstm",
    ),
)
