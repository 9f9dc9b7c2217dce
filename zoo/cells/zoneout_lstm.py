"""ZoneoutLSTMCell and ZoneoutLSTM."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells._zoneout import ZoneoutCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutLSTMCell(ZoneoutCell, ForgetGateCell):
    """LSTM with zoneout, which keeps the previous h or c of random units.

    Krueger et al.: "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017,
    arXiv 1606.01305, eq. 4-6::

        c_t = d_c * c_{t-1} + (1 - d_c) * (sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g))
        h_t = d_h * h_{t-1} + (1 - d_h) * (sigmoid(o) * tanh(sigmoid(f) * c_{t-1} + ...))
        d_c, d_h are 1 with the probability of their rates, or else 0; at inference, the rates

    As in the paper, h uses the cell state before zoneout.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order i, f, g, o of `keras.layers.LSTM`:
        kernel: [features, 4 * units].
        recurrent_kernel: [units, 4 * units].
        bias: [4 * units]; None if `use_bias=False`. The block of f starts at 1 with
            `unit_forget_bias`; with `chrono_steps`, that of f starts at log(u) and that of i at
            -log(u).

    Args: those of `keras.layers.LSTMCell`, `chrono_steps` (`ForgetGateCell`), and
        zoneout: rate of h. The default is that of the paper's section 4.1.1.
        cell_zoneout: rate of c. The default is that of the paper's section 4.1.1.
        shared_mask: whether d_h and d_c of a unit come from one random number, so that with equal
            rates, a unit keeps both h and c or neither. The authors' code for permuted MNIST does
            so (teganmaharaj/zoneout, zoneout_pmnist.py:224-225).
    """

    gates = 4
    state_count = 2
    forget_gate = ("c", "f")

    def __init__(
        self,
        units: int,
        *,
        zoneout: float = 0.05,
        cell_zoneout: float = 0.5,
        shared_mask: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(units, zoneout=zoneout, **options)
        self.cell_zoneout = number("cell_zoneout", cell_zoneout, "[0, 1]")
        self.shared_mask = shared_mask

    @property
    def rates(self) -> list[float]:
        return [self.zoneout, self.cell_zoneout]

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        sums = projected[..., : 4 * self.units] + ops.matmul(
            self.drop_state(h, training), self.recurrent_kernel
        )
        i, f, g, o = ops.split(sums, 4, axis=-1)
        new_c = self.gate("f", f) * c + self.gate("i", i) * self.activation(g)
        new_h = self.gate("o", o) * self.activation(new_c)
        after = self.zone_out(projected, states, [new_h, new_c], training)
        return after[0], after


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutLSTM(CellLayer):
    """`ZoneoutLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = ZoneoutLSTMCell
