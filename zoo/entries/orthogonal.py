"""Networks with an orthogonal recurrent matrix."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import OrthogonalRNN
from gradkeeper.zoo.recipe import Recipe

ENTRIES = (
    ModelInfo.of_layer(
        OrthogonalRNN,
        name="orthogonal_rnn",
        title="Orthogonal recurrent matrix by the matrix exponential (expRNN)",
        gradient_property=(
            "Q preserves lengths for every U, so that the gradient along the linear path neither "
            "grows nor decays over any number of steps. Only modReLU with a negative b sets units "
            "and their gradients to 0."
        ),
        initialization=(
            "Q rotates pairs of units by angles uniform in [-pi, pi]. V normal with variance "
            "2 / features; b uniform in [-0.01, 0.01], so that modReLU is nearly linear."
        ),
        symbols={"a": "angle_scale"},
        recipes=(
            Recipe(
                task="copying",
                task_options={"length": 200},
                model={"units": 128, "angle_scale": 0.1},
                training={
                    "optimizer": "rmsprop",
                    "learning_rate": 1e-3,
                    "optimizer_options": {"rho": 0.99},
                    "batch_size": 50,
                    "epochs": 40,
                    "steps_per_epoch": 100,
                },
                source="nnRNN@294d4ff, README; expRNN@830ec83, 1_copying.py:12-26",
                own=("batch_size", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
)
