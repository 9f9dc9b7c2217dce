"""RHNCell and RHN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import integer
from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell, add_to_blocks


@keras.saving.register_keras_serializable(package="gradkeeper")
class RHNCell(GatedCell):
    """Recurrent highway network, with several highway layers in each time step.

    Zilly, Srivastava, Koutnik, Schmidhuber: "Recurrent Highway Networks", 2017, arXiv 1607.03474,
    eq. 6-8 with the coupled carry gate c = 1 - t::

        s_0 = h_{t-1}, for l = 1..L:
        n_l = tanh(W_n x_t [l = 1] + R_n,l s_{l-1} + b_n,l)
        t_l = sigmoid(W_t x_t [l = 1] + R_t,l s_{l-1} + b_t,l)
        s_l = t_l * n_l + (1 - t_l) * s_{l-1},  h_t = s_L

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order n, t, layer after layer:
        kernel: (W_n, W_t), [features, 2 * units].
        recurrent_kernel: [units, L * 2 * units].
        bias: b of layer 1, [2 * units]; None if `use_bias=False`.
        depth_bias: b of the other layers, [(L - 1) * 2 * units]; None if L = 1 or
            `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`, and
        recurrence_depth: number of layers L.
        transform_bias: constant added to the initial b_t. With a negative value, the layers
            initially carry most of the state.
    """

    gates = 2

    def __init__(
        self,
        units: int,
        *,
        recurrence_depth: int = 2,
        transform_bias: float = -2.0,
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.recurrence_depth = integer("recurrence_depth", recurrence_depth)
        self.transform_bias = float(transform_bias)

    def recurrent_shape(self) -> tuple[int, ...]:
        return (self.units, self.recurrence_depth * 2 * self.units)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        deeper = (self.recurrence_depth - 1) * 2 * self.units
        self.depth_bias = self.add_bias("depth_bias", deeper, self.initial_bias) if deeper else None

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        bias = super().initial_bias(shape, dtype)
        layers = bias.shape[0] // (2 * self.units)
        return add_to_blocks(bias, (0, self.transform_bias) * layers)

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"h": ops.prod(1 - ops.stack(list(gates.values())), axis=0)}

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        state, depth = states[0], self.recurrence_depth
        kernels = ops.split(self.recurrent_kernel, depth, axis=-1)
        added = [projected, *self._deeper_biases()]
        for layer, (kernel, more) in enumerate(zip(kernels, added, strict=True), 1):
            sums = ops.matmul(self.drop_state(state, training), kernel)
            candidate, gate = ops.split(sums if more is None else sums + more, 2, axis=-1)
            t = self.gate(f"t_{layer}", gate)
            state = t * self.activation(candidate) + (1 - t) * state
        return state, [state]

    def _deeper_biases(self) -> list[Tensor]:
        deeper = self.recurrence_depth - 1
        if self.depth_bias is None:
            return [None] * deeper
        return list(ops.split(self.depth_bias, deeper))


@keras.saving.register_keras_serializable(package="gradkeeper")
class RHN(CellLayer):
    """`RHNCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = RHNCell
