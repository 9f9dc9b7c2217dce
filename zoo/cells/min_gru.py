"""MinGRUCell and MinGRU."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Tensor
from gradkeeper.zoo.cells._scan import Coefficients
from gradkeeper.zoo.cells.linear_cell import MinimalCell, ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinGRUCell(MinimalCell):
    """GRU whose gate and candidate depend only on the inputs, parallel in time.

    Feng, Tung, Ahmed, Bengio, Hajimirsadeghi: "Were RNNs All We Needed?", 2024, arXiv
    2410.01201::

        z = sigmoid(W_z x_t + b_z)
        n = g(W_n x_t + b_n),  g(v) = v + 0.5 for v >= 0, sigmoid(v) otherwise
        h_t = (1 - z) * h_{t-1} + z * n

    g is from the paper's log-space form (appendix B), and keeps the states positive. With
    `log_space=False`, g(v) = v as in the paper's section 3, and the states can have any sign. Both
    forms are computed without logarithms.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, n:
        kernel: (W_z, W_n), [features, 2 * units].
        bias: (b_z, b_n), [2 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell` without those of the recurrent kernel, and
        activation: activation of n before g; "linear" by default.
        log_space: whether to use the positive g; otherwise, g(v) = v.
    """

    gates = 2
    update_gate = ("h", "z")

    def coefficients(self, projected: Tensor) -> Coefficients:
        z, n = ops.split(self.widen(projected), 2, axis=-1)
        return self.weighted(self.record_gate("z", ops.sigmoid(z)), n)


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinGRU(ScanLayer):
    """`MinGRUCell` as a layer that computes all states of a sequence in parallel."""

    cell_class = MinGRUCell
