"""Networks with an orthogonal recurrent matrix."""

from gradkeeper.zoo._model_info import ModelInfo

ENTRIES = (
    ModelInfo(
        name="orthogonal_rnn",
        title="Orthogonal recurrent matrix by the matrix exponential (expRNN)",
        paper=(
            "Lezcano-Casado, Martinez-Rubio: Cheap Orthogonal Constraints in Neural Networks: A "
            "Simple Parametrization of the Orthogonal and Unitary Group. arXiv 1901.08428"
        ),
        year=2019,
        equations=(
            "Q = exp(U - U^T)\nz = V x_t + Q h_{t-1}\nh_t = modReLU(z) = sign(z) * relu(|z| + b)"
        ),
        gradient_property=(
            "Q preserves lengths for every U, so that the gradient along the linear path neither "
            "grows nor decays over any number of steps. Only modReLU with a negative b sets units "
            "and their gradients to 0."
        ),
        initialization=(
            "Q rotates pairs of units by angles uniform in [-pi, pi]. b = 0, so that modReLU is "
            "linear."
        ),
        recipe={"optimizer": "rmsprop", "learning_rate": 1e-3, "global_clipnorm": 1.0},
        layer="gradkeeper.zoo.layers:OrthogonalRNN",
        layer_name="orthogonal_rnn",
    ),
)
