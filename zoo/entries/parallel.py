"""Networks that compute all states of a sequence in parallel."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import LRU, RGLRU, MinGRU, MinLSTM
from gradkeeper.zoo.recipe import Recipe, adding

SELECTIVE_COPYING = Recipe(
    task="selective_copying",
    task_options={"length": 64},
    model={"units": 64, "num_layers": 3, "block": True},
    training={
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "global_clipnorm": 1.0,
        "batch_size": 64,
        "epochs": 30,
        "steps_per_epoch": 100,
    },
    source="cheind/mingru@aa35d42, selective_copying.py:153-163",
    own=("global_clipnorm", "epochs", "steps_per_epoch"),
)

ENTRIES = (
    ModelInfo.of_layer(
        MinGRU,
        name="min_gru",
        title="GRU without recurrent weights, parallel in time",
        gradient_property=(
            "dh_t/dh_{t-1} = diag(1 - z), which depends only on the inputs and is in (0, 1). The "
            "gradient cannot explode through time. Units with z near 0 pass the gradient back "
            "unchanged."
        ),
        initialization="Glorot kernels, biases 0: z starts near 0.5, a half-life of one step.",
        recipes=(SELECTIVE_COPYING,),
    ),
    ModelInfo.of_layer(
        MinLSTM,
        name="min_lstm",
        title="LSTM without recurrent weights, parallel in time",
        gradient_property=(
            "dh_t/dh_{t-1} = diag(f / (f + i)), which depends only on the inputs and is in (0, 1). "
            "The gradient cannot explode through time. Units with i much smaller than f pass the "
            "gradient back unchanged."
        ),
        initialization="Glorot kernels, biases 0: state and candidate start with equal weights.",
        recipes=(SELECTIVE_COPYING,),
    ),
    ModelInfo.of_layer(
        LRU,
        name="lru",
        title="Linear recurrent unit: complex, diagonal, parallel in time",
        gradient_property=(
            "ds_t/ds_{t-1} = diag(lambda) with |lambda| < 1 by construction. The gradient decays "
            "by |lambda| per step and never grows; with |lambda| near 1, it reaches over thousands "
            "of steps. A single layer is linear; stack several, with nonlinear layers in between."
        ),
        initialization=(
            "|lambda| in [0.9, 0.999], uniform over the area of the ring; exp(gamma) = sqrt(1 - "
            "|lambda|^2), so that the states have the scale of the inputs."
        ),
        symbols={"|lambda| at the start": "radius_range", "exp(theta) at the start": "max_phase"},
        recipes=(
            adding(
                200,
                learning_rate=2e-3,
                num_layers=2,
                activation="gelu",
                radius_range=(0.99, 0.9999),
                batch_size=50,
                steps=10_000,
            ),
        ),
    ),
    ModelInfo.of_layer(
        RGLRU,
        name="rg_lru",
        title="Real-gated linear recurrent unit, parallel in time",
        gradient_property=(
            "dh_t/dh_{t-1} = diag(a) with 0 < a < 1: the gradient never grows through time. Units "
            "with r near 0 keep their state and pass the gradient back unchanged, for any L."
        ),
        initialization="L such that sigmoid(L)^c is uniform in [0.9, 0.999], with c = 8.",
        symbols={"c": "sharpness", "sigmoid(L)^c at the start": "decay_range"},
        recipes=(SELECTIVE_COPYING,),
    ),
)
