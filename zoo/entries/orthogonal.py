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
            "Q keeps every length, whatever U: along the linear path the gradient neither grows "
            "nor fades over any number of steps. Only modReLU with a negative b cuts units off."
        ),
        initialization="Pairs of units turned by angles uniform in [-pi, pi], b 0: linear.",
        recipe={"optimizer": "rmsprop", "learning_rate": 1e-3, "global_clipnorm": 1.0},
        layer="gradkeeper.zoo.layers:OrthogonalRNN",
        layer_name="orthogonal_rnn",
    ),
)
