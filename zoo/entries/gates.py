"""Networks with other gates than the LSTM, mostly fewer."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import ATR, CFN, JANET, MGU, RAN, STAR, UGRNN, LiGRU, MinimalRNN
from gradkeeper.zoo.recipe import OfLength, Recipe, adding, shakespeare

ENTRIES = (
    ModelInfo.of_layer(
        MGU,
        name="mgu",
        title="Minimal gated unit: a GRU with a single gate",
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(1 - f): units with f near 0 copy their state and pass the "
            "gradient back unchanged. The same f also scales the path through n."
        ),
        initialization="Orthogonal recurrent kernel, biases 0: f starts at 0.5.",
        recipes=(adding(200),),
    ),
    ModelInfo.of_layer(
        JANET,
        name="janet",
        title="LSTM with only the forget gate",
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
        symbols={"beta": "beta", "T": "chrono_steps"},
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 200},
                model={"units": 128, "chrono_steps": OfLength(1.0)},
                training={
                    "optimizer": "adam",
                    "learning_rate": 1e-3,
                    "global_clipnorm": 5.0,
                    "batch_size": 50,
                    "epochs": 60,
                    "steps_per_epoch": 100,
                },
                source="janet@fa2f0a5, main.py:26-80",
                own=("epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        UGRNN,
        name="ugrnn",
        title="Update gate network: a simple RNN with one gate",
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(z): units with z near 1 copy their state and pass the "
            "gradient back unchanged, as in a GRU. Units with z near 0 act as a simple RNN, whose "
            "gradient vanishes or explodes depending on U_n."
        ),
        initialization="Bias of z 1: z starts at 0.73. Orthogonal recurrent kernel.",
        recipes=(adding(200),),
    ),
    ModelInfo.of_layer(
        MinimalRNN,
        name="minimal_rnn",
        title="Gated mean of the state and an encoding of the input",
        gradient_property=(
            "dh_t/dh_{t-1} = diag(u) + diag((h_{t-1} - z) * u * (1 - u)) U. Because |h| < 1 and "
            "|z| < 1, the second term is at most U / 2. The gradient decays with u and rarely "
            "explodes."
        ),
        initialization="Orthogonal U and V, biases 0: u starts near 0.5.",
        recipes=(adding(200),),
    ),
    ModelInfo.of_layer(
        STAR,
        name="star",
        title="Stackable recurrent cell",
        gradient_property=(
            "Designed for depth: the gradient keeps its size from layer to layer, while in stacked "
            "LSTMs it decays. Through time, dh_t/dh_{t-1} contains diag((1 - h_t^2) * (1 - k)), "
            "which is below 1, so that the gradient is more likely to vanish over many steps than "
            "to explode."
        ),
        initialization=(
            "Orthogonal U, biases 0: k starts at 0.5. For dependencies over T steps, "
            "`chrono_steps=T` starts the bias of k at -log(uniform in [1, T - 1]). The authors' "
            "code has T - 1 = 784."
        ),
        symbols={"beta": "beta", "T": "chrono_steps"},
        recipes=(
            Recipe(
                task="sequential_mnist",
                task_options={"size": 7},
                model={"units": 32, "num_layers": 8, "chrono_steps": 49, "beta": 1.0},
                training={
                    "optimizer": "adam",
                    "learning_rate": 1e-3,
                    "global_clipnorm": 5.0,
                    "batch_size": 200,
                    "epochs": 4,
                },
                source="STAR_Network@b8030e5, main.py:24-80, star.py:29-66",
                own=("size", "units", "num_layers", "epochs"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        LiGRU,
        name="li_gru",
        title="Light GRU, without reset gate and with relu candidates",
        gradient_property=(
            "The slope of relu is 1 for active units, so that the gradient through n does not "
            "vanish by saturation; diag(z) copies the state. The states are unbounded: if U_n "
            "increases lengths, activations and gradients explode. Use clipping and scaled inputs."
        ),
        initialization="Orthogonal recurrent kernel: U_n initially preserves lengths. Biases 0.",
        recipes=(adding(200),),
    ),
    ModelInfo.of_layer(
        RAN,
        name="ran",
        title="Recurrent additive network",
        gradient_property=(
            "Along the cell state, dc_t/dc_{t-1} = diag(f), as in the LSTM. h affects only the "
            "gates, not the candidate, so that the other paths are weaker than in an LSTM."
        ),
        initialization="Forget bias 1: f starts at 0.73; orthogonal recurrent kernel.",
        recipes=(
            adding(200),
            shakespeare(),
        ),
    ),
    ModelInfo.of_layer(
        CFN,
        name="cfn",
        title="Chaos-free network",
        gradient_property=(
            "Without inputs, every state converges to 0. Trajectories do not diverge as in a "
            "chaotic network, where gradients explode. dh_t/dh_{t-1} contains "
            "diag(f * (1 - tanh(h_{t-1})^2)), which is below 1: the gradient decays, even with "
            "f = 1, because of the tanh."
        ),
        initialization=("Bias of f 1 (f starts at 0.73), of i -1; orthogonal recurrent kernel."),
        recipes=(
            adding(200),
            shakespeare(),
        ),
    ),
    ModelInfo.of_layer(
        ATR,
        name="atr",
        title="Addition-subtraction twin-gated network",
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(f): units with f near 1 pass the gradient back unchanged. "
            "The rest, (p * i * (1 - i) - h_{t-1} * f * (1 - f)) U, grows with inputs and states. "
            "These are not bounded by a tanh, so that large inputs can make the gradient explode."
        ),
        initialization="Orthogonal U, biases 0: i and f start at 0.5.",
        recipes=(
            adding(200),
            shakespeare(learning_rate=1e-2),
        ),
    ),
)
