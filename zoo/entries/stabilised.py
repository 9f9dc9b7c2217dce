"""Networks with a bounded, slowed or regularized recurrence."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import RHN, FastGRNN, FastRNN, IndRNN, ZoneoutGRU, ZoneoutLSTM
from gradkeeper.zoo.recipe import OfLength, Recipe, adding, shakespeare

# The start of W and U in the code of FastRNN.
_NORMAL = {"class_name": "RandomNormal", "config": {"stddev": 0.1}}

# A text so short that the network without zoneout overfits within the training.
_OVERFITTING = shakespeare(
    units=256, learning_rate=4e-3, length=100, batch_size=32, epochs=70, training_fraction=0.05
)

ENTRIES = (
    ModelInfo.of_layer(
        IndRNN,
        name="ind_rnn",
        title="Independently recurrent network",
        gradient_property=(
            "At each step, the gradient of an active unit is multiplied by the unit's u; over T "
            "steps, by at most |u|^T <= 2. The gradient cannot explode, and it does not vanish if "
            "u is near 1."
        ),
        initialization="u uniform in [0, 1], so that units have different memory lengths.",
        symbols={"T": "sequence_length"},
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 200},
                model={
                    "units": 128,
                    "num_layers": 2,
                    "sequence_length": OfLength(1.0),
                    "recurrent_initializer": [None, "ones"],
                    "kernel_initializer": {
                        "class_name": "RandomNormal",
                        "config": {"mean": 0.0, "stddev": 0.001},
                    },
                },
                training={
                    "optimizer": "adam",
                    "learning_rate": 2e-4,
                    "clipvalue": 10.0,
                    "batch_size": 50,
                    "epochs": 200,
                    "steps_per_epoch": 100,
                },
                source="IndRNN_pytorch@9b9cb4c, adding.py:27-89",
                own=("length", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        FastRNN,
        name="fast_rnn",
        title="Simple RNN with a weighted residual connection through time",
        gradient_property=(
            "dh_t/dh_{t-1} = sigmoid(beta) I + sigmoid(alpha) diag(tanh') U. With the initial "
            "alpha and beta, this is near 0.95 I, so that the gradient halves in about 14 steps. "
            "Training can move sigmoid(beta) towards 1."
        ),
        initialization=(
            "alpha = -3, beta = 3: a step keeps 95 % of the state and adds 5 %. For sequences of T "
            "steps, use alpha = -log(T), beta = log(T): h_0 keeps a weight of more than 36 %."
        ),
        symbols={"alpha at the start": "alpha", "beta at the start": "beta"},
        recipes=(
            Recipe(
                task="noise_padded",
                task_options={"length": 500},
                model={
                    "units": 128,
                    "alpha": -6.2,  # -log(500), and log(500)
                    "beta": 6.2,
                    "kernel_initializer": _NORMAL,
                    "recurrent_initializer": _NORMAL,
                },
                training={
                    "optimizer": "adam",
                    "learning_rate": 5e-3,
                    "global_clipnorm": 1.0,
                    "batch_size": 50,
                    "epochs": 30,
                    "steps_per_epoch": 100,
                },
                source="EdgeML@81025fc, graph/rnn.py:451-483, helpermethods.py:105-146",
                own=(
                    *("length", "units", "alpha", "beta", "learning_rate", "global_clipnorm"),
                    *("batch_size", "epochs", "steps_per_epoch"),
                ),
            ),
        ),
    ),
    ModelInfo.of_layer(
        FastGRNN,
        name="fast_grnn",
        title="Gated network whose gate and candidate share their matrices",
        gradient_property=(
            "As in a GRU, units with z near 1 copy their state and pass the gradient back "
            "unchanged. Gate and candidate share their matrices and are therefore not independent."
        ),
        initialization=(
            "zeta = 1, nu = -4, orthogonal U, biases 0. In the authors' code, both biases are 1; "
            'use `bias_initializer="ones"`.'
        ),
        symbols={"zeta at the start": "zeta", "nu at the start": "nu"},
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 200},
                model={"units": 128, "bias_initializer": "ones"},
                training={
                    "optimizer": "adam",
                    "learning_rate": 1e-2,
                    "global_clipnorm": 1.0,
                    "batch_size": 100,
                    "epochs": 30,
                    "steps_per_epoch": 100,
                },
                source="EdgeML@81025fc, graph/rnn.py:237-268, helpermethods.py:105-146",
                own=("units", "global_clipnorm", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        ZoneoutLSTM,
        name="zoneout_lstm",
        title="LSTM with zoneout, which keeps the state of random units",
        gradient_property=(
            "Units that keep their state pass the gradient back unchanged. Zoneout not only "
            "regularizes but also adds paths of slope 1 through time, as a forget gate of 1 does."
        ),
        initialization="As in `lstm`. Zoneout keeps 5 % of h and 50 % of c.",
        symbols={"d_c": "cell_zoneout", "d_h": "zoneout"},
        recipes=(_OVERFITTING,),
    ),
    ModelInfo.of_layer(
        ZoneoutGRU,
        name="zoneout_gru",
        title="GRU with zoneout, which keeps the state of random units",
        gradient_property=(
            "Units that keep their state pass the gradient back unchanged. These are paths of "
            "slope 1 through time, as with an update gate of 1."
        ),
        initialization="As in `gru`. Zoneout keeps 10 % of h.",
        symbols={"d": "zoneout"},
        recipes=(_OVERFITTING,),
    ),
    ModelInfo.of_layer(
        RHN,
        name="rhn",
        title="Recurrent highway network, with several layers in each time step",
        gradient_property=(
            "Every layer carries a fraction 1 - t of its state. With t near 0, the gradient passes "
            "the L layers of each step unchanged, while it would vanish in L plain layers."
        ),
        initialization="Transform bias -2: t starts at 0.12.",
        symbols={"L": "recurrence_depth", "b_t,l at the start": "transform_bias"},
        recipes=(shakespeare(units=114, recurrence_depth=4, learning_rate=4e-3),),
    ),
    ModelInfo(
        name="np_rnn",
        title="ReLU network with a normalized positive definite recurrent matrix",
        paper=(
            'Talathi, Vartak: "Improving performance of recurrent neural network with relu '
            'nonlinearity", 2015, arXiv 1511.03771'
        ),
        equations="h_t = relu(W_x x_t + W_h h_{t-1} + b), W_h = (A + I) / e, A = R^T R / n",
        gradient_property=(
            "Initially, W_h has the eigenvalue 1 once, and all other eigenvalues are between 0 and "
            "1. The gradient is unchanged in one direction and grows in none. W_h can change in "
            "training; use clipping and a small learning rate."
        ),
        initialization="W_h normalized positive definite, with largest eigenvalue 1.",
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
        recipes=(adding(100, learning_rate=5e-4, units=100, batch_size=50, steps=10_000),),
    ),
)
