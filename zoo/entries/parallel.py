"""Networks that compute all states of a sequence in parallel."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}
MIN_PAPER = "Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: Were RNNs All We Needed? arXiv 2410.01201"
CANDIDATE = "\ng(v) = v + 0.5 for v >= 0, sigmoid(v) otherwise"

ENTRIES = (
    ModelInfo(
        name="min_gru",
        title="GRU without recurrent weights, parallel in time",
        paper=MIN_PAPER,
        year=2024,
        equations=(
            "z = sigmoid(W_z x_t + b_z)\nh_t = (1 - z) * h_{t-1} + z * g(W_n x_t + b_n)" + CANDIDATE
        ),
        gradient_property=(
            "dh_t/dh_{t-1} = diag(1 - z), which depends only on the inputs and is in (0, 1). The "
            "gradient cannot explode through time. Units with z near 0 pass the gradient back "
            "unchanged."
        ),
        initialization="Glorot kernels, biases 0: z starts near 0.5, a half-life of one step.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MinGRU",
        layer_name="min_gru",
    ),
    ModelInfo(
        name="min_lstm",
        title="LSTM without recurrent weights, parallel in time",
        paper=MIN_PAPER,
        year=2024,
        equations=(
            "f = sigmoid(W_f x_t + b_f), i = sigmoid(W_i x_t + b_i)\n"
            "h_t = (f * h_{t-1} + i * g(W_n x_t + b_n)) / (f + i)" + CANDIDATE
        ),
        gradient_property=(
            "dh_t/dh_{t-1} = diag(f / (f + i)), which depends only on the inputs and is in (0, 1). "
            "The gradient cannot explode through time. Units with i much smaller than f pass the "
            "gradient back unchanged."
        ),
        initialization="Glorot kernels, biases 0: state and candidate start with equal weights.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:MinLSTM",
        layer_name="min_lstm",
    ),
    ModelInfo(
        name="lru",
        title="Linear recurrent unit: complex, diagonal, parallel in time",
        paper=(
            "Orvieto et al.: Resurrecting Recurrent Neural Networks for Long Sequences. arXiv "
            "2303.06349"
        ),
        year=2023,
        equations=(
            "lambda = exp(-exp(nu) + i exp(theta))\n"
            "s_t = lambda * s_{t-1} + exp(gamma) * (B x_t)\n"
            "h_t = Re(C s_t) + D x_t + b"
        ),
        gradient_property=(
            "ds_t/ds_{t-1} = diag(lambda) with |lambda| < 1 by construction. The gradient decays "
            "by |lambda| per step and never grows; with |lambda| near 1, it reaches over thousands "
            "of steps. A single layer is linear; stack several, with nonlinear layers in between."
        ),
        initialization=(
            "|lambda| in [0.9, 0.999], uniform over the area of the ring; exp(gamma) = sqrt(1 - "
            "|lambda|^2), so that the states have the scale of the inputs."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LRU",
        layer_name="lru",
        symbols={"|lambda| at the start": "radius_range", "exp(theta) at the start": "max_phase"},
    ),
    ModelInfo(
        name="rg_lru",
        title="Real-gated linear recurrent unit, parallel in time",
        paper=(
            "De et al.: Griffin: Mixing Gated Linear Recurrences with Local Attention for "
            "Efficient Language Models. arXiv 2402.19427"
        ),
        year=2024,
        equations=(
            "v = W_v x_t + b_v\n"
            "r = sigmoid(W_r x_t + b_r), i = sigmoid(W_i x_t + b_i)\n"
            "a = sigmoid(L)^(c r)\n"
            "h_t = a * h_{t-1} + sqrt(1 - a^2) * (i * v)"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} = diag(a) with 0 < a < 1: the gradient never grows through time. Units "
            "with r near 0 keep their state and pass the gradient back unchanged, for any L."
        ),
        initialization="L such that sigmoid(L)^c is uniform in [0.9, 0.999], with c = 8.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:RGLRU",
        layer_name="rg_lru",
        symbols={"c": "sharpness", "sigmoid(L)^c at the start": "decay_range"},
    ),
)
