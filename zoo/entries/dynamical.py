"""Networks from discretized differential equations."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.layers import (
    LEM,
    AntisymmetricRNN,
    CoRNN,
    GatedAntisymmetricRNN,
    LipschitzRNN,
    UnICORNN,
)
from gradkeeper.zoo.recipe import OfLength, Recipe

NOISE_PADDED = Recipe(
    task="noise_padded",
    task_options={"length": 500},
    model={"units": 128, "step_size": 0.05, "diffusion": 0.01},
    training={
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "global_clipnorm": 1.0,
        "batch_size": 50,
        "epochs": 30,
        "steps_per_epoch": 100,
    },
    source="Chang et al. 2019 (AntisymmetricRNN), section 5.3",
    own=(
        "length",
        "step_size",
        "diffusion",
        "optimizer",
        "learning_rate",
        "global_clipnorm",
        "batch_size",
        "epochs",
        "steps_per_epoch",
    ),
)

ENTRIES = (
    ModelInfo.of_layer(
        AntisymmetricRNN,
        name="antisymmetric_rnn",
        title="Euler step of a stable differential equation",
        gradient_property=(
            "W - W^T has imaginary eigenvalues, so that dh_t/dh_{t-1} = I + epsilon diag(tanh') "
            "(W - W^T - gamma I) keeps lengths nearly constant in all directions. The gradient "
            "neither explodes nor vanishes over about 1 / epsilon steps. Every Euler step grows "
            "slightly; gamma and a small epsilon limit the growth."
        ),
        initialization=(
            "W normal with variance 1 / units, so that the frequencies do not depend on the width. "
            "The default epsilon of 0.01 suits several hundred steps; use about 10 / steps."
        ),
        symbols={"epsilon": "step_size", "gamma": "diffusion"},
        recipes=(NOISE_PADDED,),
    ),
    ModelInfo.of_layer(
        GatedAntisymmetricRNN,
        name="gated_antisymmetric_rnn",
        title="AntisymmetricRNN with an input gate",
        gradient_property=(
            "As in `antisymmetric_rnn`. A unit with a closed gate keeps its state and passes the "
            "gradient back unchanged. The gate shares the matrix A, so that the eigenvalues of the "
            "differential equation's Jacobian stay near the imaginary axis."
        ),
        initialization="W normal with variance 1 / units, biases 0: z starts near 0.5.",
        symbols={"epsilon": "step_size", "gamma": "diffusion"},
        recipes=(NOISE_PADDED,),
    ),
    ModelInfo.of_layer(
        CoRNN,
        name="co_rnn",
        title="Coupled oscillatory recurrent network",
        gradient_property=(
            "The states are damped oscillators under a bounded force. If 2 epsilon >= 1 + dt "
            "(gamma + epsilon^2), they are bounded for all weights. Each step is the identity plus "
            "O(dt). If dt is at most of the order of 1 / steps, and dt times the weights is small, "
            "the gradient is bounded and does not vanish exponentially."
        ),
        initialization=(
            "V, W, W_c and b uniform within +-1 / sqrt(features + 2 units), as in the authors' "
            "code. gamma = 1 and epsilon = 1 satisfy the condition for dt up to 0.5."
        ),
        symbols={"dt": "step_size", "gamma": "frequency", "epsilon": "damping"},
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 100},
                model={"units": 128, "step_size": 0.06, "frequency": 66.0, "damping": 15.0},
                training={
                    "optimizer": "adam",
                    "learning_rate": 2e-2,
                    "batch_size": 50,
                    "epochs": 60,
                    "steps_per_epoch": 100,
                },
                source="coRNN@afd8174, adding_task.py:12-31",
                own=("epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        UnICORNN,
        name="unicornn",
        title="Undamped independent controlled oscillators",
        gradient_property=(
            "The step is a symplectic step of a Hamiltonian system. The Jacobian of (h, c) has "
            "determinant 1, so that the gradient cannot vanish in all directions. For small dt, "
            "the bound of the gradient does not grow exponentially with the number of steps. Units "
            "do not interact within a layer; stack several layers."
        ),
        initialization=(
            "w uniform in [0, 1], which gives an attractive force; s uniform in [-0.1, 0.1], so "
            "that all steps start near dt / 2."
        ),
        symbols={"dt": "step_size", "alpha": "alpha", "s at the start": "step_initializer"},
        recipes=(
            Recipe(
                task="noise_padded",
                task_options={"length": 1000},
                model={"units": 64, "num_layers": 3, "step_size": 0.126, "alpha": 13.0},
                training={
                    "optimizer": "adam",
                    "learning_rate": 3.14e-3,
                    "batch_size": 30,
                    "epochs": 20,
                    "steps_per_epoch": 100,
                },
                source="unicornn@35b243d, noisy_cifar10",
                own=("units", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        LEM,
        name="lem",
        title="Long expressive memory",
        gradient_property=(
            "Each unit learns its time steps d1 and d2. If they are small, the states and the "
            "gradient pass nearly unchanged. With dt <= 1, both states stay in [-1, 1]. The "
            "products of U and W with tanh' can still grow, so that clipping is useful."
        ),
        initialization=(
            "All weights and biases uniform within +-1 / sqrt(units), as in the authors' code: the "
            "steps start near dt / 2."
        ),
        symbols={"dt": "step_size"},
        recipes=(
            Recipe(
                task="adding",
                task_options={"length": 500},
                # The authors' 0.0242 for 2,000 steps.
                model={"units": 128, "step_size": OfLength(48.4, -1, maximum=1.0)},
                training={
                    "optimizer": "adam",
                    "learning_rate": 2.6e-3,
                    "global_clipnorm": 1.0,
                    "batch_size": 50,
                    "epochs": 25,
                    "steps_per_epoch": 100,
                },
                source="LEM@833da6b, src/adding/adding_task.py:11-24",
                own=("length", "global_clipnorm", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
    ModelInfo.of_layer(
        LipschitzRNN,
        name="lipschitz_rnn",
        title="Lipschitz recurrent network",
        gradient_property=(
            "dh_t/dh_{t-1} = I + epsilon (A + diag(tanh') W). With beta near 1, the eigenvalues "
            "of A and W are near the imaginary axis; gamma subtracts from their real parts. "
            "Neither A nor W is exactly antisymmetric, so that the network can forget."
        ),
        initialization=(
            "M_A, M_W normal with standard deviation 0.1 / units, as in the authors' code, so that "
            "they are nearly 0. With gamma = 0.001, the network starts near the limit of stability."
        ),
        symbols={"epsilon": "step_size", "beta": "antisymmetry", "gamma": "diffusion"},
        recipes=(
            Recipe(
                task="noise_padded",
                task_options={"length": 500},
                model={"units": 128, "step_size": 0.03},
                training={
                    "optimizer": "adam",
                    "learning_rate": 3e-3,
                    "batch_size": 50,
                    "epochs": 30,
                    "steps_per_epoch": 100,
                },
                source="LipschitzRNN@df6552e, driver.py:28-66",
                own=("length", "batch_size", "epochs", "steps_per_epoch"),
            ),
        ),
    ),
)
