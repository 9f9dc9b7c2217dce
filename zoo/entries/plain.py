"""Plain recurrent networks: simple, identity-initialized, gated, residual."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.recipe import OfLength, Recipe, adding, shakespeare

LSTM_EQUATIONS = """\
i, f, o = sigmoid(W_i [x_t; h_{t-1}] + b_i), likewise f, o
g = tanh(W_g [x_t; h_{t-1}] + b_g)
c_t = f * c_{t-1} + i * g
h_t = o * tanh(c_t)"""

GRU_EQUATIONS = """\
z, r = sigmoid(W_z x_t + U_z h_{t-1} + b_z), likewise r
n = tanh(W x_t + b + r * (U h_{t-1} + b'))
h_t = z * h_{t-1} + (1 - z) * n"""

SIMPLE_RNN_EQUATIONS = "h_t = tanh(W_x x_t + W_h h_{t-1} + b)"

ENTRIES = (
    ModelInfo(
        name="simple_rnn",
        title="Simple recurrent network (Elman)",
        paper='Elman: "Finding Structure in Time", Cognitive Science 14, 1990',
        equations=SIMPLE_RNN_EQUATIONS,
        gradient_property=(
            "dh_t/dh_{t-1} = diag(1 - h_t^2) W_h, one factor per step. The gradient explodes if "
            "W_h increases lengths, and vanishes if W_h decreases lengths or tanh saturates. Use "
            "clipping. The network learns dependencies over 10 to 20 steps."
        ),
        initialization="Orthogonal W_h, which initially preserves lengths.",
        layer="keras.layers:SimpleRNN",
        layer_name="simple_rnn",
        recipes=(
            adding(
                20,
                learning_rate=2e-3,
                units=128,
                batch_size=50,
                steps=4_000,
                source="Li et al. 2018 (IndRNN), section 5.1, for tanh networks",
                own=("global_clipnorm", "batch_size", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo(
        name="irnn",
        title="ReLU network with identity recurrent matrix",
        paper=(
            'Le, Jaitly, Hinton: "A Simple Way to Initialize Recurrent Networks of Rectified '
            'Linear Units", 2015, arXiv 1504.00941'
        ),
        equations="h_t = relu(W_x x_t + W_h h_{t-1} + b), W_h = identity at the start",
        gradient_property=(
            "Initially, dh_t/dh_{t-1} is the identity for active units, so that the gradient is "
            "unchanged over hundreds of steps. W_h can leave the identity in training. relu is "
            "unbounded: if W_h increases lengths, activations and gradients explode. Use clipping "
            "and a small learning rate."
        ),
        initialization="W_h identity, W_x normal with standard deviation 0.001, bias 0.",
        layer="keras.layers:SimpleRNN",
        layer_name="irnn",
        options={
            "activation": "relu",
            "recurrent_initializer": "identity",
            "kernel_initializer": {
                "class_name": "RandomNormal",
                "config": {"mean": 0.0, "stddev": 0.001},
            },
        },
        recipes=(
            adding(
                100,
                learning_rate=2e-4,
                units=128,
                batch_size=50,
                global_clipnorm=100.0,
                steps=30_000,
                source="Li et al. 2018 (IndRNN), section 5.1, for IRNN; code of batzner/indrnn",
                own=("global_clipnorm", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo(
        name="lstm",
        title="Long short-term memory with forget gate",
        paper=(
            'Hochreiter, Schmidhuber: "Long Short-Term Memory", Neural Computation 9, 1997; '
            'forget gate: Gers, Schmidhuber, Cummins: "Learning to Forget", 2000'
        ),
        equations=LSTM_EQUATIONS,
        gradient_property=(
            "Along the cell state, dc_t/dc_{t-1} = diag(f): with f near 1, the gradient neither "
            "grows nor decays. The gradient along paths through h can still explode, so that "
            "clipping is useful."
        ),
        initialization="Forget bias 1: f starts at 0.73; orthogonal recurrent kernel.",
        layer="keras.layers:LSTM",
        layer_name="lstm",
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 200},
                model={
                    "units": 128,
                    "unit_forget_bias": False,
                    "bias_initializer": {
                        "module": "gradkeeper.zoo.initializers",
                        "class_name": "Chrono",
                        "config": {"steps": OfLength(1.0)},
                        "registered_name": "gradkeeper>Chrono",
                    },
                },
                training={
                    "optimizer": "adam",
                    "learning_rate": 2e-3,
                    "global_clipnorm": 1.0,
                    "batch_size": 50,
                    "epochs": 30,
                    "steps_per_epoch": 100,
                },
                source="Tallec, Ollivier 2018 (chrono initialization), section 3",
                # With the authors' RMSprop, the error is 0.15 after 5,000 steps.
                own=(
                    *("optimizer", "learning_rate", "global_clipnorm"),
                    *("batch_size", "epochs", "steps_per_epoch"),
                ),
            ),
            shakespeare(),
        ),
    ),
    ModelInfo(
        name="gru",
        title="Gated recurrent unit",
        paper=(
            'Cho et al.: "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv '
            "1406.1078 (reset gate after the matrix product, as in version 1 and cuDNN)"
        ),
        equations=GRU_EQUATIONS,
        gradient_property=(
            "dh_t/dh_{t-1} contains diag(z): units with z near 1 copy their state and pass the "
            "gradient back unchanged."
        ),
        initialization="Orthogonal recurrent kernel, biases 0: z starts at 0.5.",
        layer="keras.layers:GRU",
        layer_name="gru",
        recipes=(
            adding(600, schedule="cosine", steps=6_000),
            shakespeare(),
        ),
    ),
    ModelInfo(
        name="residual_lstm",
        title="Stacked LSTM with residual connections between the layers",
        paper=(
            'Prakash et al.: "Neural Paraphrase Generation with Stacked Residual LSTM Networks", '
            '2016, arXiv 1610.03098; Wu et al.: "Google\'s Neural Machine Translation System", '
            "2016, arXiv 1609.08144, eq. 6"
        ),
        equations=f"{LSTM_EQUATIONS}\noutput of layer l = input of layer l + h_t, from layer 2 on",
        gradient_property=(
            "The sum adds a path of slope 1 around every layer, so that the lower layers of a deep "
            "stack learn as fast as the upper ones. Through time, each layer is an LSTM."
        ),
        initialization="As in `lstm`.",
        layer="keras.layers:LSTM",
        layer_name="lstm",
        options={"num_layers": 4, "residual": True},
        recipes=(shakespeare(units=64, num_layers=4, epochs=2),),
    ),
)
