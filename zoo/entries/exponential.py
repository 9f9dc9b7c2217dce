"""Networks with exponential gates."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import SLSTM
from gradkeeper.zoo.recipe import Recipe

ENTRIES = (
    ModelInfo.of_layer(
        SLSTM,
        name="s_lstm",
        title="LSTM with exponential gates (xLSTM's sLSTM)",
        gradient_property=(
            "As in the LSTM, dc_t/dc_{t-1} = diag(f). The exponential input gate can give a new "
            "input a larger weight than all stored ones. The normalizer keeps h in [-1, 1]. The "
            "gradient along paths through h can still explode, so that clipping is useful."
        ),
        initialization="Forget bias 1, orthogonal recurrent kernel.",
        recipes=(
            Recipe(
                task="parity",
                model={"units": 64},
                training={
                    "optimizer": "adamw",
                    "learning_rate": 1e-3,
                    "optimizer_options": {
                        "weight_decay": 0.1,
                        "warmup_steps": 300,
                        "final_fraction": 0.001,
                    },
                    "schedule": "cosine",
                    "batch_size": 128,
                    "epochs": 50,
                    "steps_per_epoch": 100,
                },
                source="xlstm@032a6fb, experiments/parity_xlstm01.yaml",
                own=("optimizer_options", "batch_size", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
)
