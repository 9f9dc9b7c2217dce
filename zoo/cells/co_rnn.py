"""CoRNNCell and CoRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._uniform_start import UniformStartCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoRNNCell(UniformStartCell):
    """Coupled damped oscillators with the inputs as a driving force.

    Rusch, Mishra: "Coupled Oscillatory Recurrent Neural Network (coRNN): An accurate and
    (gradient) stable architecture for learning long time dependencies", 2021, arXiv 2010.00951::

        c_t = c_{t-1} + dt * (tanh(W h_{t-1} + W_c c_{t-1} + V x_t + b)
                              - gamma * h_{t-1} - epsilon * c_{t-1})
        h_t = h_{t-1} + dt * c_t

    h are the positions and c the velocities. With `implicit_damping`, the damping is
    epsilon * c_t, and the equation is solved for c_t. The paper gives both.

    Both states are bounded for all weights if the damping is larger than the force and the error
    of the step: 2 * epsilon >= 1 + dt * (gamma + epsilon^2), or with `implicit_damping`
    2 * epsilon >= 1 + dt * gamma. Then gamma * h_t^2 + c_t^2 grows by at most dt per step and
    unit (the paper's proposition on the energy, from h = c = 0). The gradient neither explodes
    nor vanishes if dt * (1 + |W|) and dt * |W_c| are small too.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: V, [features, units].
        recurrent_kernel: W, [units, units].
        velocity_kernel: W_c, [units, units].
        bias: b, [units]; None if `use_bias=False`.
    All start uniform within +-1 / sqrt(features + 2 * units), as in the authors' code, which has
    one `nn.Linear` for x, c and h (tk-rusch/coRNN, adding/model.py:12).

    Args: those of `keras.layers.SimpleRNNCell`, and
        step_size: dt, above 0.
        frequency: gamma, above 0.
        damping: epsilon, at least 0.
        implicit_damping: whether the damping acts on c_t instead of c_{t-1}.
    """

    state_count = 2

    def __init__(
        self,
        units: int,
        *,
        step_size: float = 0.05,
        frequency: float = 1.0,
        damping: float = 1.0,
        implicit_damping: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.step_size = number("step_size", step_size)
        self.frequency = number("frequency", frequency)
        self.damping = number("damping", damping, "[0, inf)")
        self.implicit_damping = implicit_damping

    def initial_limit(self, features: Any) -> float:
        return float((features + 2 * self.units) ** -0.5)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.velocity_kernel = self.add_recurrent("velocity_kernel", (self.units, self.units))

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        force = self.activation(sums + ops.matmul(c, self.velocity_kernel)) - self.frequency * h
        if self.implicit_damping:
            c = (c + self.step_size * force) / (1 + self.step_size * self.damping)
        else:
            c = c + self.step_size * (force - self.damping * c)
        h = h + self.step_size * c
        return h, [h, c]


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoRNN(CellLayer):
    """`CoRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = CoRNNCell
