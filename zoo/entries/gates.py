"""Networks with gates other than the LSTM's, most with fewer."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}

ENTRIES = (
    ModelInfo(
        name="mgu",
        title="Minimal gated unit: a GRU whose two gates are one",
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
            "dh_t/dh_{t-1} contains diag(1 - f): units with f near 0 copy their state and hand the "
            "gradient back unchanged. The same f closes the path through n."
        ),
        initialization="Orthogonal recurrent kernel, biases 0: f starts at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MGU",
        layer_name="mgu",
    ),
    ModelInfo(
        name="janet",
        title="LSTM with nothing but the forget gate",
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
            "dh_t/dh_{t-1} contains diag(f), f = sigmoid(s): with f near 1 the gradient neither "
            "grows nor fades. Chrono initialization sets f so that single units remember over 1 "
            "to T steps. Nothing stands between state and gates: the rest of the Jacobian can "
            "explode where U is large."
        ),
        initialization=(
            "Forget bias 1, orthogonal recurrent kernel. The paper starts the forget bias at "
            "log(uniform in [1, T - 1]) for dependencies of T steps: "
            "`chrono_steps=T`."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:JANET",
        layer_name="janet",
        symbols={"beta": "beta", "T": "chrono_steps"},
    ),
    ModelInfo(
        name="ugrnn",
        title="Update gate network: a simple network behind one gate",
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
            "dh_t/dh_{t-1} contains diag(z): units with z near 1 copy their state and hand the "
            "gradient back unchanged, as in a GRU; units with z near 0 are a simple network, "
            "whose gradient vanishes or explodes with U_n."
        ),
        initialization="Bias 1 of z: starts by keeping. Orthogonal recurrent kernel.",
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
            "dh_t/dh_{t-1} = diag(u) + diag((h_{t-1} - z) * u * (1 - u)) U. As |h|, |z| < 1, the "
            "second term is at most half of U: the gradient fades by u and seldom explodes."
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
            "Made for depth: the gradient keeps its size from layer to layer as well as from step "
            "to step, where that of stacked LSTMs fades. Through time dh_t/dh_{t-1} contains "
            "diag((1 - h_t^2) * (1 - k)), below 1: over many steps it vanishes rather than "
            "explodes."
        ),
        initialization="Orthogonal U, biases 0: k starts at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:STAR",
        layer_name="star",
    ),
    ModelInfo(
        name="li_gru",
        title="Light GRU: no reset gate, relu candidates",
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
            "The slope of relu is 1 on active units, so that the path through n does not vanish "
            "by saturation, and diag(z) copies. Nothing bounds the states: where U_n stretches, "
            "activations and gradients explode. Needs clipping and scaled inputs."
        ),
        initialization="Orthogonal recurrent kernel: U_n does not stretch at the start. Biases 0.",
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
            "Along the cell state dc_t/dc_{t-1} = diag(f), as in the LSTM. h enters through the "
            "gates only, never the content: the other paths are weaker than in an LSTM."
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
            "Without inputs every state falls to 0, so that trajectories do not part as in a "
            "chaotic network, where gradients explode. dh_t/dh_{t-1} contains "
            "diag(f * (1 - tanh(h_{t-1})^2)), below 1: the gradient fades, by the tanh even with f "
            "at 1."
        ),
        initialization=("Bias 1 of f and -1 of i: starts by keeping. Orthogonal recurrent kernel."),
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
            "dh_t/dh_{t-1} contains diag(f): units with f near 1 hand the gradient back unchanged. "
            "The rest, (p * i * (1 - i) - h_{t-1} * f * (1 - f)) U, grows with inputs and states, "
            "which no tanh bounds: large inputs can make it explode."
        ),
        initialization="Orthogonal U, biases 0: i and f start at 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:ATR",
        layer_name="atr",
    ),
)
