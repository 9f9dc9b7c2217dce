"""UnICORNNCell and UnICORNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Config, Initializer, Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell

SMALL_UNIFORM: Config = {"class_name": "RandomUniform", "config": {"minval": -0.1, "maxval": 0.1}}
UNIT_UNIFORM: Config = {"class_name": "RandomUniform", "config": {"minval": 0.0, "maxval": 1.0}}


@keras.saving.register_keras_serializable(package="gradkeeper")
class UnICORNNCell(RecurrentCell):
    """Undamped independent oscillators, each with a learned time step.

    Rusch, Mishra: "UnICORNN: A recurrent model for learning very long time dependencies", 2021,
    arXiv 2103.05487, one layer::

        d = dt * sigmoid(s)
        c_t = c_{t-1} - d * (tanh(w * h_{t-1} + V x_t + b) + alpha * h_{t-1})
        h_t = h_{t-1} + d * c_t

    h are the positions and c the momenta. The step is a symplectic Euler step of a Hamiltonian
    system. It is invertible and preserves volume, so that gradients cannot vanish in all
    directions. Without inputs, small oscillations are stable if 0 < alpha + w < 4 / d^2.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: V, [features, units].
        recurrent_kernel: w, [units].
        step_kernel: s, [units].
        bias: b, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell`, and
        step_size: dt, above 0.
        alpha: control parameter of the frequency, at least 0.
        step_initializer: initializer of s.
    """

    state_count = 2

    def __init__(
        self,
        units: int,
        *,
        step_size: float = 0.1,
        alpha: float = 1.0,
        recurrent_initializer: Initializer = UNIT_UNIFORM,
        step_initializer: Initializer = SMALL_UNIFORM,
        **options: Any,
    ) -> None:
        super().__init__(units, recurrent_initializer=recurrent_initializer, **options)
        self.step_size = number("step_size", step_size)
        self.alpha = number("alpha", alpha, "[0, inf)")
        self.step_initializer = resolve("step_initializer", step_initializer)

    def recurrent_shape(self) -> tuple[int, ...]:
        return (self.units,)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.step_kernel = self.add_weight(
            shape=(self.units,), name="step_kernel", initializer=self.step_initializer
        )

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        d = self.step_size * ops.sigmoid(self.step_kernel)
        force = self.activation(projected + self.recurrent_kernel * self.drop_state(h, training))
        c = c - d * (force + self.alpha * h)
        h = h + d * c
        return h, [h, c]


@keras.saving.register_keras_serializable(package="gradkeeper")
class UnICORNN(CellLayer):
    """`UnICORNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = UnICORNNCell
