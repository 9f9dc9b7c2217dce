"""Base classes of the cells with gates."""

from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper.zoo._typing import Activation, Shape, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


class GatedCell(RecurrentCell):
    """Base class of cells with gates.

    Args:
        recurrent_activation: activation of the gates, usually with values in [0, 1].
    """

    def __init__(
        self, units: int, *, recurrent_activation: Activation = "sigmoid", **options: Any
    ) -> None:
        super().__init__(units, **options)
        self.recurrent_activation = resolve("recurrent_activation", recurrent_activation)


class ForgetGateCell(GatedCell):
    """Base class of cells with a forget gate, the block `forget_gate` of the kernel.

    Args:
        unit_forget_bias: whether to add 1 to the initial bias of the forget gate, so that the cell
            keeps its state at the start of training (Gers, Schmidhuber, Cummins 2000; Jozefowicz
            et al. 2015).
    """

    forget_gate: ClassVar[int] = 1

    def __init__(self, units: int, *, unit_forget_bias: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        first_block, _, _ = self.biased.indices(self.gates)
        block = ops.arange(shape[0]) // self.units + first_block
        return bias + ops.cast(block == self.forget_gate, keras.backend.standardize_dtype(dtype))
