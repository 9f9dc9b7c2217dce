"""CFNCell and CFN."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class CFNCell(ForgetGateCell):
    """Chaos-free network: without inputs, the state converges to zero from any initial state.

    Laurent, von Brecht: "A recurrent neural network without chaos", 2016, arXiv 1612.06212::

        f = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        i = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        h_t = f * tanh(h_{t-1}) + i * tanh(W_n x_t)

    f and i are the paper's theta and eta.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order f, i, n:
        kernel: (W_f, W_i, W_n), [features, 3 * units].
        recurrent_kernel: (U_f, U_i), [units, 2 * units].
        bias: (b_f, b_i), [2 * units], or (b_f, b_i, b_n), [3 * units], with `candidate_bias`. With
            `unit_forget_bias`, b_f starts at 1 and b_i at -1; with `chrono_steps`, at log(u) and
            -log(u). None if `use_bias=False`.

    Args: those of `keras.layers.LSTMCell`, `chrono_steps` (`ForgetGateCell`), and
        candidate_bias: whether the candidate is tanh(W_n x_t + b_n). The paper has no such bias.
    """

    gates = 3
    recurrent_gates = 2
    gate_signs = (1, -1, 0)
    forget_gate = ("h", "f")

    def __init__(self, units: int, *, candidate_bias: bool = False, **options: Any) -> None:
        super().__init__(units, **options)
        self.candidate_bias = candidate_bias
        self.biased = slice(0, 3 if candidate_bias else 2)

    def unit_bias(self) -> tuple[int, ...]:
        return self.gate_signs

    def project(self, prepared: Tensor) -> Tensor:
        sums = super().project(prepared)
        split = 2 * self.units
        return ops.concatenate([sums[..., :split], self.activation(sums[..., split:])], axis=-1)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        split = 2 * self.units
        recurrent = ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        gates = self.recurrent_activation(projected[..., :split] + recurrent)
        f, i = ops.split(gates, 2, axis=-1)
        f, i = self.record_gate("f", f), self.record_gate("i", i)
        h = f * self.activation(h) + i * projected[..., split:]
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class CFN(CellLayer):
    """`CFNCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = CFNCell
