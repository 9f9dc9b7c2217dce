"""MinLSTMCell and MinLSTM."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Tensor
from gradkeeper.zoo.cells._scan import Coefficients
from gradkeeper.zoo.cells.linear_cell import MinimalCell, ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinLSTMCell(MinimalCell):
    """LSTM whose gates and candidate depend only on the inputs, parallel in time.

    Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: "Were RNNs All We Needed?", 2024, arXiv
    2410.01201::

        f = sigmoid(W_f x_t + b_f),  i = sigmoid(W_i x_t + b_i)
        n = g(W_n x_t + b_n),  g(v) = v + 0.5 for v >= 0, sigmoid(v) otherwise
        h_t = (f * h_{t-1} + i * n) / (f + i)

    g is from the paper's log-space form (appendix B), and keeps the states positive. With
    `log_space=False`, g(v) = v as in the paper's section 3, and the states can have any sign. Both
    forms are computed without logarithms.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order f, i, n:
        kernel: (W_f, W_i, W_n), [features, 3 * units].
        bias: (b_f, b_i, b_n), [3 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell` without those of the recurrent kernel, and
        activation: activation of n before g; "linear" by default.
        log_space: whether to use the positive g; otherwise, g(v) = v.
    """

    gates = 3
    forget_gate = ("h", "f / (f + i)")

    def coefficients(self, projected: Tensor) -> Coefficients:
        f, i, n = ops.split(self.widen(projected), 3, axis=-1)
        # log(i / f), because the weight i / (f + i) of the candidate is its sigmoid.
        weight = ops.sigmoid(ops.softplus(-f) - ops.softplus(-i))
        a, b = self.weighted(self.record_gate("i / (f + i)", weight), n)
        return self.record_gate("f / (f + i)", a), b


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinLSTM(ScanLayer):
    """`MinLSTMCell` as a layer that computes all states of a sequence in parallel."""

    cell_class = MinLSTMCell
