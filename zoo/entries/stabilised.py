"""Networks with a bounded, slowed or regularized recurrence."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}
FAST = (
    "Kusupati, Singh, Bhatia, Kumar, Jain, Varma: FastGRNN: A Fast, Accurate, Stable and Tiny "
    "Kilobyte Sized Gated Recurrent Neural Network. arXiv 1901.02358"
)
ZONEOUT = (
    "Krueger et al.: Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations. arXiv "
    "1606.01305"
)

ENTRIES = (
    ModelInfo(
        name="ind_rnn",
        title="Independently recurrent network",
        paper=(
            "Li, Li, Cook, Zhu, Gao: Independently Recurrent Neural Network (IndRNN): Building A "
            "Longer and Deeper RNN. arXiv 1803.04831"
        ),
        year=2018,
        equations="h_t = relu(W x_t + u * h_{t-1} + b), |u| <= 2^(1/T)",
        gradient_property=(
            "At each step, the gradient of an active unit is multiplied by the unit's u; over T "
            "steps, by at most |u|^T <= 2. The gradient cannot explode, and it does not vanish if "
            "u is near 1."
        ),
        initialization="u uniform in [0, 1], so that units have different memory lengths.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:IndRNN",
        layer_name="ind_rnn",
        symbols={"T": "sequence_length"},
    ),
    ModelInfo(
        name="fast_rnn",
        title="Simple RNN with a weighted residual connection through time",
        paper=FAST,
        year=2018,
        equations=("h_t = sigmoid(alpha) * tanh(W x_t + U h_{t-1} + b) + sigmoid(beta) * h_{t-1}"),
        gradient_property=(
            "dh_t/dh_{t-1} = sigmoid(beta) I + sigmoid(alpha) diag(tanh') U. With the initial "
            "alpha and beta, this is near 0.95 I, so that the gradient halves in about 14 steps. "
            "Training can move sigmoid(beta) towards 1."
        ),
        initialization="alpha = -3, beta = 3: a step keeps 95 % of the state and adds 5 %.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:FastRNN",
        layer_name="fast_rnn",
    ),
    ModelInfo(
        name="fast_grnn",
        title="Gated network whose gate and candidate share their matrices",
        paper=FAST,
        year=2018,
        equations=(
            "z = sigmoid(W x_t + U h_{t-1} + b_z), n = tanh(W x_t + U h_{t-1} + b_n)\n"
            "h_t = (sigmoid(zeta) * (1 - z) + sigmoid(nu)) * n + z * h_{t-1}"
        ),
        gradient_property=(
            "As in a GRU, units with z near 1 copy their state and pass the gradient back "
            "unchanged. Gate and candidate share their matrices and are therefore not independent."
        ),
        initialization="zeta = 1, nu = -4, orthogonal U.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:FastGRNN",
        layer_name="fast_grnn",
    ),
    ModelInfo(
        name="zoneout_lstm",
        title="LSTM with zoneout, which keeps the state of random units",
        paper=ZONEOUT,
        year=2017,
        equations=(
            "c_t = d_c * c_{t-1} + (1 - d_c) * LSTM's c_t\n"
            "h_t = d_h * h_{t-1} + (1 - d_h) * LSTM's h_t; d is 1 at random, its rate at inference"
        ),
        gradient_property=(
            "Units that keep their state pass the gradient back unchanged. Zoneout not only "
            "regularizes but also adds paths of slope 1 through time, as a forget gate of 1 does."
        ),
        initialization="As in `lstm`. Zoneout keeps 10 % of h and 50 % of c.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:ZoneoutLSTM",
        layer_name="zoneout_lstm",
        symbols={"d_c": "cell_zoneout", "d_h": "zoneout"},
    ),
    ModelInfo(
        name="zoneout_gru",
        title="GRU with zoneout, which keeps the state of random units",
        paper=ZONEOUT,
        year=2017,
        equations="h_t = d * h_{t-1} + (1 - d) * GRU's h_t; d is 1 at random, its rate at inference",
        gradient_property=(
            "Units that keep their state pass the gradient back unchanged. These are paths of "
            "slope 1 through time, as with an update gate of 1."
        ),
        initialization="As in `gru`. Zoneout keeps 10 % of h.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:ZoneoutGRU",
        layer_name="zoneout_gru",
        symbols={"d": "zoneout"},
    ),
    ModelInfo(
        name="rhn",
        title="Recurrent highway network, with several layers in each time step",
        paper="Zilly, Srivastava, Koutnik, Schmidhuber: Recurrent Highway Networks. arXiv 1607.03474",
        year=2017,
        equations=(
            "s_0 = h_{t-1}; for l = 1..L: s_l = t_l * n_l + (1 - t_l) * s_{l-1}\n"
            "n_l = tanh(W_n x_t [l = 1] + R_n,l s_{l-1} + b_n,l)\n"
            "t_l = sigmoid(W_t x_t [l = 1] + R_t,l s_{l-1} + b_t,l)\n"
            "h_t = s_L"
        ),
        gradient_property=(
            "Every layer carries a fraction 1 - t of its state. With t near 0, the gradient passes "
            "the L layers of each step unchanged, while it would vanish in L plain layers."
        ),
        initialization="Transform bias -2: t starts at 0.12.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:RHN",
        layer_name="rhn",
        symbols={"L": "recurrence_depth", "b_t,l at the start": "transform_bias"},
    ),
    ModelInfo(
        name="np_rnn",
        title="ReLU network with a normalized positive definite recurrent matrix",
        paper=(
            "Talathi, Vartak: Improving performance of recurrent neural network with relu "
            "nonlinearity. arXiv 1511.03771"
        ),
        year=2015,
        equations="h_t = relu(W_x x_t + W_h h_{t-1} + b), W_h = (A + I) / e, A = R^T R / n",
        gradient_property=(
            "Initially, W_h has the eigenvalue 1 once, and all other eigenvalues are between 0 and "
            "1. The gradient is unchanged in one direction and grows in none. W_h can change in "
            "training; use clipping and a small learning rate."
        ),
        initialization="W_h normalized positive definite, with largest eigenvalue 1.",
        recipe={"optimizer": "adam", "learning_rate": 1e-4, "global_clipnorm": 1.0},
        layer="keras.layers:SimpleRNN",
        layer_name="np_rnn",
        options={
            "activation": "relu",
            "recurrent_initializer": {
                "module": "gradkeeper.zoo.initializers",
                "class_name": "NormalizedPositiveDefinite",
                "config": {},
                "registered_name": "gradkeeper>NormalizedPositiveDefinite",
            },
        },
    ),
)
