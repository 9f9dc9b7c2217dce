"""Networks with an orthogonal recurrent matrix."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import OrthogonalRNN

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
        recipe={"optimizer": "rmsprop", "learning_rate": 1e-3, "global_clipnorm": 1.0},
    ),
)
