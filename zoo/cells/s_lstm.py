"""SLSTMCell and SLSTM."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class SLSTMCell(ForgetGateCell):
    """LSTM with exponential input gates, a normalizer state and a stabilizer state.

    Beck et al.: "xLSTM: Extended Long Short-Term Memory", 2024, arXiv 2405.04517, eq. 8-17, with
    one head::

        (i, f, z, o) = W x_t + R h_{t-1} + b
        f' = sigmoid(f), or exp(f) with `exponential_forget`
        m_t = max(log f' + m_{t-1}, i), which cancels in c / n
        a = exp(i - m_t),  d = exp(log f' + m_{t-1} - m_t)
        c_t = d * c_{t-1} + a * tanh(z)
        n_t = d * n_{t-1} + a
        h_t = sigmoid(o) * c_t / n_t

    m only prevents overflow of the exponentials. At the first step, where
    n_{t-1} = 0, m_t = i.

    Inputs: x_t [batch, features]. States: h, c, n, m, each [batch, units]. Output: h_t [batch,
    units].

    Weights, in the order i, f, z, o:
        kernel: W, [features, 4 * units].
        recurrent_kernel: R, [units, 4 * units].
        bias: b, [4 * units]; None if `use_bias=False`. The block of f starts at 1 with
            `unit_forget_bias`, and at log(u) with `chrono_steps`. That of i has no effect, because
            its exponential cancels in c / n.

    Args: those of `keras.layers.LSTMCell` (`recurrent_activation` is for the output gate),
    `chrono_steps` (`ForgetGateCell`), and
        exponential_forget: whether f' = exp(f) instead of sigmoid(f).

    Raises:
        ValueError: if `chrono_steps` is given with `exponential_forget`. exp(log(u)) is above 1, so
            that old inputs would have the largest weights.
    """

    gates = 4
    gate_signs = (0, 1, 0, 0)
    state_count = 4
    update_gate = ("c / n", "a / n")

    def __init__(self, units: int, *, exponential_forget: bool = False, **options: Any) -> None:
        super().__init__(units, **options)
        self.exponential_forget = exponential_forget
        if exponential_forget and self.chrono_steps is not None:
            raise ValueError(
                "`chrono_steps` is for a sigmoid forget gate. Remove one of the options. "
                f"Received: exponential_forget=True, chrono_steps={self.chrono_steps}"
            )

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c, n, m = states
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        i, f, z, o = ops.split(sums, 4, axis=-1)
        log_f = f if self.exponential_forget else -ops.softplus(-f)
        begun = n > 0
        # m cancels in c / n, so that its gradient is zero.
        highest = ops.stop_gradient(ops.where(begun, ops.maximum(log_f + m, i), i))
        a = ops.exp(i - highest)
        d = ops.exp(ops.where(begun, log_f + m - highest, ops.zeros_like(a)))
        c = d * c + a * self.activation(z)
        n = d * n + a
        self.record_gate("a / n", a / n)
        h = self.gate("o", o) * c / n
        return h, [h, c, n, highest]


@keras.saving.register_keras_serializable(package="gradkeeper")
class SLSTM(CellLayer):
    """`SLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = SLSTMCell
