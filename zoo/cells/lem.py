"""LEMCell and LEM."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._uniform_start import UniformStartCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class LEMCell(UniformStartCell, GatedCell):
    """Long expressive memory: two states, each with learned time steps.

    Rusch, Mishra, Erichson, Mahoney: "Long Expressive Memory for Sequence Modeling", 2022, arXiv
    2110.04744::

        d1 = dt * sigmoid(U_1 h_{t-1} + V_1 x_t + b_1)
        d2 = dt * sigmoid(U_2 h_{t-1} + V_2 x_t + b_2)
        c_t = (1 - d2) * c_{t-1} + d2 * tanh(U_c h_{t-1} + V_c x_t + b_c)
        h_t = (1 - d1) * h_{t-1} + d1 * tanh(W c_t + V_h x_t + b_h)

    h is the paper's y, and c the paper's z. The paper exchanges the numbers of the two steps. With
    `implicit=False`, the last line uses c_{t-1} instead of c_t.

    With dt <= 1, each state is a weighted mean of its last value and a value in [-1, 1], so that
    both states stay in [-1, 1].

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order 1, 2, c, h:
        kernel: (V_1, V_2, V_c, V_h), [features, 4 * units].
        recurrent_kernel: (U_1, U_2, U_c), [units, 3 * units].
        cell_kernel: W, [units, units].
        bias: (b_1, b_2, b_c, b_h), [4 * units]; None if `use_bias=False`.
    All start uniform within +-1 / sqrt(units), as in the authors' code (tk-rusch/LEM,
    sMNIST/network.py:16-19). That code has a second bias in each sum, with the same start.

    Args: those of `keras.layers.LSTMCell` without `unit_forget_bias`, and
        step_size: dt, above 0.
        implicit: whether h_t depends on c_t instead of c_{t-1}.
    """

    gates = 4
    recurrent_gates = 3
    state_count = 2

    def __init__(
        self, units: int, *, step_size: float = 1.0, implicit: bool = True, **options: Any
    ) -> None:
        super().__init__(units, **options)
        self.step_size = number("step_size", step_size)
        self.implicit = implicit

    def initial_limit(self, features: Any) -> float:
        return float(self.units**-0.5)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.cell_kernel = self.add_recurrent("cell_kernel", (self.units, self.units))

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"h": 1 - gates["d1"], "c": 1 - gates["d2"]}

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        from_state = ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        sums = projected[..., : 3 * self.units] + from_state
        step_h, step_c, candidate = ops.split(sums, 3, axis=-1)
        d1 = self.record_gate("d1", self.step_size * self.recurrent_activation(step_h))
        d2 = self.record_gate("d2", self.step_size * self.recurrent_activation(step_c))
        after = (1 - d2) * c + d2 * self.activation(candidate)
        seen = ops.matmul(after if self.implicit else c, self.cell_kernel)
        h = (1 - d1) * h + d1 * self.activation(projected[..., 3 * self.units :] + seen)
        return h, [h, after]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LEM(CellLayer):
    """`LEMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = LEMCell
