"""STARCell and STAR."""

from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ChronoCell, NormalizedInputsCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class STARCell(NormalizedInputsCell, ChronoCell):
    """Stackable recurrent cell, designed for deep stacks of layers.

    Turkoglu, D'Aronco, Wegner, Schindler: "Gating Revisited: Deep Multi-layer RNNs That Can Be
    Trained", 2019, arXiv 1911.11033::

        z = tanh(W_z x_t + b_z)
        s = W_k x_t + U h_{t-1} + b_k
        k = sigmoid(s)
        h_t = tanh((1 - k) * h_{t-1} + sigmoid(s + beta) * z)

    The paper has beta = 0, so that z has the weight k.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, k:
        kernel: (W_z, W_k), [features, 2 * units].
        recurrent_kernel: U, [units, units].
        bias: (b_z, b_k), [2 * units]; None if `use_bias=False`. With `chrono_steps`, b_k starts at
            -log(u).
        input_norm: gamma, moving_mean and moving_variance, [2 * units] each; only with
            `normalize_inputs`.

    Args: those of `keras.layers.GRUCell` without `reset_after`, `chrono_steps` (`ChronoCell`), and
        normalize_inputs: whether to apply batch normalization to W_z x_t and W_k x_t, with the
            momentum, epsilon and initial gamma of the authors' code (bn_star.py:101-113); see
            `NormalizedInputsCell`. Their code also normalizes U h_{t-1}; a loop of the JAX backend
            cannot update the moving averages that this needs.
        beta: a constant. The authors' code has beta = 1, as JANET, and u uniform in [1, 784]
            (0zgur0/STAR_Network, star.py:16, 58-59 and 74-86).
    """

    gates = 2
    recurrent_gates = 1
    gate_signs = (0, -1)
    update_gate = ("h", "k")
    input_norm_options: ClassVar[dict[str, Any]] = {
        "momentum": 0.999,
        "epsilon": 1e-3,
        "gamma_initializer": keras.initializers.Constant(0.1),
    }

    def __init__(self, units: int, *, beta: float = 0.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.beta = number("beta", beta, "(-inf, inf)")

    def project(self, prepared: Tensor) -> Tensor:
        z, gate = ops.split(super().project(prepared), 2, axis=-1)
        return ops.concatenate([self.activation(z), gate], axis=-1)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        z, gate = ops.split(projected, 2, axis=-1)
        seen = self.drop_state(h, training)
        s = gate + ops.matmul(seen, self.recurrent_kernel)
        k = self.gate("k", s)
        taken_in = self.gate("i", s + self.beta) if self.beta else k
        h = self.activation((1 - k) * h + taken_in * z)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class STAR(CellLayer):
    """`STARCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = STARCell
