"""Networks with other gates than the LSTM, mostly fewer."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}

ENTRIES = (
    ModelInfo(
        name="mgu",
        title="Minimal gated unit: a GRU with a single gate",
        paper=(
            "Zhou, Wu, Zhang, Zhou: Minimal Gated Unit for Recurrent Neural Networks. arXiv "
            "1603.09420"
        ),
        year=2016,
        equations=(
            "f = sigmoid(W_f x_t + U_f h_{t-1} + b_f)\n"
            "n = tanh(W_n x_t + U_n (f * h_{t-1}) + b_n)\n"
            "h_t = (1 - f) * h_{t-1} + f * n"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(1 - f): units with f near 0 copy their state and pass the "
            "gradient back unchanged. The same f also scales the path through n."
        ),
        initialization="Orthogonal recurrent kernel, biases 0: f starts at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MGU",
        layer_name="mgu",
    ),
    ModelInfo(
        name="janet",
        title="LSTM with only the forget gate",
        paper=(
            "Van der Westhuizen, Lasenby: The unreasonable effectiveness of the forget gate. arXiv "
            "1804.04849"
        ),
        year=2018,
        equations=(
            "s = W_f x_t + U_f h_{t-1} + b_f\n"
            "n = tanh(W_n x_t + U_n h_{t-1} + b_n)\n"
            "h_t = sigmoid(s) * h_{t-1} + (1 - sigmoid(s - beta)) * n, beta = 1"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(f), f = sigmoid(s): with f near 1, the gradient neither "
            "grows nor decays. With chrono initialization, different units remember over 1 to T "
            "steps. There is no output gate between the state and the gates, so that the rest of "
            "the Jacobian can explode if U is large."
        ),
        initialization=(
            "Forget bias 1, orthogonal recurrent kernel. The paper initializes the forget bias to "
            "log(uniform in [1, T - 1]) for dependencies over T steps; use `chrono_steps=T`."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:JANET",
        layer_name="janet",
        symbols={"beta": "beta", "T": "chrono_steps"},
    ),
    ModelInfo(
        name="ugrnn",
        title="Update gate network: a simple RNN with one gate",
        paper=(
            "Collins, Sohl-Dickstein, Sussillo: Capacity and Trainability in Recurrent Neural "
            "Networks. arXiv 1611.09913"
        ),
        year=2016,
        equations=(
            "n = tanh(W_n x_t + U_n h_{t-1} + b_n)\n"
            "z = sigmoid(W_z x_t + U_z h_{t-1} + b_z)\n"
            "h_t = z * h_{t-1} + (1 - z) * n"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(z): units with z near 1 copy their state and pass the "
            "gradient back unchanged, as in a GRU. Units with z near 0 act as a simple RNN, whose "
            "gradient vanishes or explodes depending on U_n."
        ),
        initialization="Bias of z 1: z starts at 0.73. Orthogonal recurrent kernel.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:UGRNN",
        layer_name="ugrnn",
    ),
    ModelInfo(
        name="minimal_rnn",
        title="Gated mean of the state and an encoding of the input",
        paper=(
            "Chen: MinimalRNN: Toward More Interpretable and Trainable Recurrent Neural Networks. "
            "arXiv 1711.06788"
        ),
        year=2017,
        equations=(
            "z = tanh(W x_t + b_z)\n"
            "u = sigmoid(U h_{t-1} + V z + b_u)\n"
            "h_t = u * h_{t-1} + (1 - u) * z"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} = diag(u) + diag((h_{t-1} - z) * u * (1 - u)) U. Because |h| < 1 and "
            "|z| < 1, the second term is at most U / 2. The gradient decays with u and rarely "
            "explodes."
        ),
        initialization="Orthogonal U and V, biases 0: u starts near 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MinimalRNN",
        layer_name="minimal_rnn",
    ),
    ModelInfo(
        name="star",
        title="Stackable recurrent cell",
        paper=(
            "Turkoglu, D'Aronco, Wegner, Schindler: Gating Revisited: Deep Multi-layer RNNs That "
            "Can Be Trained. arXiv 1911.11033"
        ),
        year=2019,
        equations=(
            "z = tanh(W_z x_t + b_z)\n"
            "k = sigmoid(W_k x_t + U h_{t-1} + b_k)\n"
            "h_t = tanh((1 - k) * h_{t-1} + k * z)"
        ),
        gradient_property=(
            "Designed for depth: the gradient keeps its size from layer to layer, while in stacked "
            "LSTMs it decays. Through time, dh_t/dh_{t-1} contains diag((1 - h_t^2) * (1 - k)), "
            "which is below 1, so that the gradient is more likely to vanish over many steps than "
            "to explode."
        ),
        initialization="Orthogonal U, biases 0: k starts at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:STAR",
        layer_name="star",
    ),
    ModelInfo(
        name="li_gru",
        title="Light GRU, without reset gate and with relu candidates",
        paper=(
            "Ravanelli, Brakel, Omologo, Bengio: Light Gated Recurrent Units for Speech "
            "Recognition. arXiv 1803.10225 (without its batch normalization)"
        ),
        year=2018,
        equations=(
            "z = sigmoid(W_z x_t + U_z h_{t-1} + b_z)\n"
            "n = relu(W_n x_t + U_n h_{t-1} + b_n)\n"
            "h_t = z * h_{t-1} + (1 - z) * n"
        ),
        gradient_property=(
            "The slope of relu is 1 for active units, so that the gradient through n does not "
            "vanish by saturation; diag(z) copies the state. The states are unbounded: if U_n "
            "increases lengths, activations and gradients explode. Use clipping and scaled inputs."
        ),
        initialization="Orthogonal recurrent kernel: U_n initially preserves lengths. Biases 0.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LiGRU",
        layer_name="li_gru",
    ),
    ModelInfo(
        name="ran",
        title="Recurrent additive network",
        paper="Lee, Levy, Zettlemoyer: Recurrent Additive Networks. arXiv 1705.07393",
        year=2017,
        equations=(
            "n = W_n x_t\n"
            "i, f = sigmoid(W_i x_t + U_i h_{t-1} + b_i), likewise f\n"
            "c_t = i * n + f * c_{t-1}\n"
            "h_t = tanh(c_t)"
        ),
        gradient_property=(
            "Along the cell state, dc_t/dc_{t-1} = diag(f), as in the LSTM. h affects only the "
            "gates, not the candidate, so that the other paths are weaker than in an LSTM."
        ),
        initialization="Forget bias 1: f starts at 0.73; orthogonal recurrent kernel.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:RAN",
        layer_name="ran",
    ),
    ModelInfo(
        name="cfn",
        title="Chaos-free network",
        paper=("Laurent, von Brecht: A recurrent neural network without chaos. arXiv 1612.06212"),
        year=2016,
        equations=(
            "f, i = sigmoid(W_f x_t + U_f h_{t-1} + b_f), likewise i\n"
            "h_t = f * tanh(h_{t-1}) + i * tanh(W_n x_t)"
        ),
        gradient_property=(
            "Without inputs, every state converges to 0. Trajectories do not diverge as in a "
            "chaotic network, where gradients explode. dh_t/dh_{t-1} contains "
            "diag(f * (1 - tanh(h_{t-1})^2)), which is below 1: the gradient decays, even with "
            "f = 1, because of the tanh."
        ),
        initialization=("Bias of f 1 (f starts at 0.73), of i -1; orthogonal recurrent kernel."),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:CFN",
        layer_name="cfn",
    ),
    ModelInfo(
        name="atr",
        title="Addition-subtraction twin-gated network",
        paper=(
            "Zhang, Xiong, Su, Lin, Zhang: Simplifying Neural Machine Translation with "
            "Addition-Subtraction Twin-Gated Recurrent Networks. arXiv 1810.12546"
        ),
        year=2018,
        equations=(
            "p = W x_t + b, q = U h_{t-1} + b'\n"
            "i = sigmoid(p + q), f = sigmoid(p - q)\n"
            "h_t = i * p + f * h_{t-1}"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(f): units with f near 1 pass the gradient back unchanged. "
            "The rest, (p * i * (1 - i) - h_{t-1} * f * (1 - f)) U, grows with inputs and states. "
            "These are not bounded by a tanh, so that large inputs can make the gradient explode."
        ),
        initialization="Orthogonal U, biases 0: i and f start at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:ATR",
        layer_name="atr",
    ),
)
