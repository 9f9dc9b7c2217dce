"""Networks from discretized differential equations."""

from gradkeeper.zoo._model_info import ModelInfo

RECIPE = {"optimizer": "adam", "learning_rate": 1e-3, "global_clipnorm": 1.0}
ANTISYMMETRIC = (
    "Chang, Chen, Haber, Chi: AntisymmetricRNN: A Dynamical System View on Recurrent Neural "
    "Networks. arXiv 1902.09689"
)

ENTRIES = (
    ModelInfo(
        name="antisymmetric_rnn",
        title="Euler step of a stable differential equation",
        paper=ANTISYMMETRIC,
        year=2019,
        equations="h_t = h_{t-1} + epsilon * tanh((W - W^T - gamma I) h_{t-1} + V x_t + b)",
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
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:AntisymmetricRNN",
        layer_name="antisymmetric_rnn",
        symbols={"epsilon": "step_size", "gamma": "diffusion"},
    ),
    ModelInfo(
        name="gated_antisymmetric_rnn",
        title="AntisymmetricRNN with an input gate",
        paper=ANTISYMMETRIC,
        year=2019,
        equations=(
            "A = W - W^T - gamma I\n"
            "z = sigmoid(A h_{t-1} + V_z x_t + b_z)\n"
            "h_t = h_{t-1} + epsilon * z * tanh(A h_{t-1} + V_h x_t + b_h)"
        ),
        gradient_property=(
            "As in `antisymmetric_rnn`. A unit with a closed gate keeps its state and passes the "
            "gradient back unchanged. The gate shares the matrix A, so that the eigenvalues of the "
            "differential equation's Jacobian stay near the imaginary axis."
        ),
        initialization="W normal with variance 1 / units, biases 0: z starts near 0.5.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:GatedAntisymmetricRNN",
        layer_name="gated_antisymmetric_rnn",
        symbols={"epsilon": "step_size", "gamma": "diffusion"},
    ),
    ModelInfo(
        name="co_rnn",
        title="Coupled oscillatory recurrent network",
        paper=(
            "Rusch, Mishra: Coupled Oscillatory Recurrent Neural Network (coRNN): An accurate "
            "and (gradient) stable architecture for learning long time dependencies. arXiv "
            "2010.00951"
        ),
        year=2021,
        equations=(
            "c_t = c_{t-1} + dt * (tanh(W h_{t-1} + W_c c_{t-1} + V x_t + b)"
            " - gamma * h_{t-1} - epsilon * c_{t-1})\n"
            "h_t = h_{t-1} + dt * c_t"
        ),
        gradient_property=(
            "The states are damped oscillators under a bounded force. If 2 epsilon >= 1 + dt "
            "(gamma + epsilon^2), they are bounded for all weights. Each step is the identity plus "
            "O(dt). If dt is at most of the order of 1 / steps, and dt times the weights is small, "
            "the gradient is bounded and does not vanish exponentially."
        ),
        initialization=(
            "Orthogonal W and W_c, which only have an effect of order dt. gamma = 1 and "
            "epsilon = 1 satisfy the condition for dt up to 0.5."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:CoRNN",
        layer_name="co_rnn",
        symbols={"dt": "step_size", "gamma": "frequency", "epsilon": "damping"},
    ),
    ModelInfo(
        name="unicornn",
        title="Undamped independent controlled oscillators",
        paper=(
            "Rusch, Mishra: UnICORNN: A recurrent model for learning very long time "
            "dependencies. arXiv 2103.05487"
        ),
        year=2021,
        equations=(
            "d = dt * sigmoid(s)\n"
            "c_t = c_{t-1} - d * (tanh(w * h_{t-1} + V x_t + b) + alpha * h_{t-1})\n"
            "h_t = h_{t-1} + d * c_t"
        ),
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
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:UnICORNN",
        layer_name="unicornn",
        symbols={"dt": "step_size", "alpha": "alpha", "s at the start": "step_initializer"},
    ),
    ModelInfo(
        name="lem",
        title="Long expressive memory",
        paper=(
            "Rusch, Mishra, Erichson, Mahoney: Long Expressive Memory for Sequence Modeling. "
            "arXiv 2110.04744"
        ),
        year=2022,
        equations=(
            "d1, d2 = dt * sigmoid(U_1 h_{t-1} + V_1 x_t + b_1), likewise d2\n"
            "c_t = (1 - d2) * c_{t-1} + d2 * tanh(U_c h_{t-1} + V_c x_t + b_c)\n"
            "h_t = (1 - d1) * h_{t-1} + d1 * tanh(W c_t + V_h x_t + b_h)"
        ),
        gradient_property=(
            "Each unit learns its time steps d1 and d2. If they are small, the states and the "
            "gradient pass nearly unchanged. With dt <= 1, both states stay in [-1, 1]. The "
            "products of U and W with tanh' can still grow, so that clipping is useful."
        ),
        initialization="Orthogonal recurrent kernels, biases 0: the steps start at dt / 2.",
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LEM",
        layer_name="lem",
        symbols={"dt": "step_size"},
    ),
    ModelInfo(
        name="lipschitz_rnn",
        title="Lipschitz recurrent network",
        paper=(
            "Erichson, Azencot, Queiruga, Hodgkinson, Mahoney: Lipschitz Recurrent Neural "
            "Networks. arXiv 2006.12070"
        ),
        year=2021,
        equations=(
            "A = (1 - beta) (M_A + M_A^T) + beta (M_A - M_A^T) - gamma I, likewise W of M_W\n"
            "h_t = h_{t-1} + epsilon * (A h_{t-1} + tanh(W h_{t-1} + V x_t + b))"
        ),
        gradient_property=(
            "dh_t/dh_{t-1} = I + epsilon (A + diag(tanh') W). With beta near 1, the eigenvalues "
            "of A and W are near the imaginary axis; gamma subtracts from their real parts. "
            "Neither A nor W is exactly antisymmetric, so that the network can forget."
        ),
        initialization=(
            "M_A, M_W normal with variance 1 / units. With beta = 0.75 and gamma = 0.001, the "
            "network starts near the limit of stability."
        ),
        recipe=RECIPE,
        layer="gradkeeper.zoo.layers:LipschitzRNN",
        layer_name="lipschitz_rnn",
        symbols={"epsilon": "step_size", "beta": "antisymmetry", "gamma": "diffusion"},
    ),
)
