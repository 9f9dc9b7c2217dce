"""Base classes of the cells with gates."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper._arguments import integer
from gradkeeper.zoo._typing import Activation, Shape, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell
from gradkeeper.zoo.initializers import Chrono


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

    def gate(self, name: str, sums: Tensor) -> Tensor:
        """Apply the activation of the gates, and record the gate under its name."""
        return self.record_gate(name, self.recurrent_activation(sums))


class NormalizedInputsCell(GatedCell):
    """Base class of cells that can apply batch normalization to W x_t.

    The shifts of the normalization are the biases. The statistics of a layer are those of the batch
    over all time steps, masked steps included. The cell alone computes them for each step.

    A subclass sets:
        input_norm_options: arguments of the `keras.layers.BatchNormalization`.

    Args:
        normalize_inputs: whether to apply the batch normalization. Its weights are gamma,
            moving_mean and moving_variance, [gates * units] each.
    """

    input_norm_options: ClassVar[dict[str, Any]]

    def __init__(self, units: int, *, normalize_inputs: bool = False, **options: Any) -> None:
        super().__init__(units, **options)
        self.normalize_inputs = normalize_inputs
        self.input_norm = None
        if normalize_inputs:
            self.input_norm = keras.layers.BatchNormalization(
                center=False, name="input_norm", dtype=self.dtype_policy, **self.input_norm_options
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.input_norm is not None:
            self.input_norm.build((None, self.gates * self.units))

    def prepare(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = super().prepare(inputs, training)
        if self.input_norm is None:
            return inputs
        products = ops.matmul(inputs, self.kernel)
        rows = ops.reshape(products, (-1, products.shape[-1]))
        return ops.reshape(self.input_norm(rows, training=training), ops.shape(products))

    def project(self, prepared: Tensor) -> Tensor:
        if self.input_norm is None:
            return super().project(prepared)
        return prepared if self.bias is None else prepared + self.bias


class ChronoCell(GatedCell):
    """Base class of cells whose gates can start with memories of different lengths.

    A subclass sets:
        gate_signs: for each block of the kernel, 1 for the forget gate, -1 for a separate input
            gate, and 0 for other blocks.

    Args:
        chrono_steps: length T of the longest dependency in time steps, at least 3. If given,
            log(u) is added to the initial bias of the forget gate and subtracted from that of the
            input gate. u is uniform in [1, T - 1], drawn with `seed`, and the same for both gates
            of a unit (`gradkeeper.zoo.initializers.Chrono`; Tallec, Ollivier 2018).

    Raises:
        ValueError: if `chrono_steps` is below 3, or given with `use_bias=False`.
    """

    gate_signs: ClassVar[tuple[int, ...]]

    def __init__(self, units: int, *, chrono_steps: int | None = None, **options: Any) -> None:
        super().__init__(units, **options)
        self.chrono_steps = chrono_steps
        if chrono_steps is not None:
            integer("chrono_steps", chrono_steps, minimum=3)
            if not self.use_bias:
                raise ValueError(
                    "`chrono_steps` initializes biases, so that `use_bias` must be True. "
                    f"Received: use_bias=False, chrono_steps={chrono_steps}"
                )

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        bias = super().initial_bias(shape, dtype)
        if self.chrono_steps is None:
            return bias
        chrono = Chrono(self.chrono_steps, self.gate_signs[self.biased], self.seed)
        return bias + chrono(bias.shape, dtype)


class ForgetGateCell(ChronoCell):
    """Base class of cells with a forget gate.

    Args:
        unit_forget_bias: whether to add 1 to the initial bias of the forget gate, so that the cell
            keeps its state at the start of training (Gers, Schmidhuber, Cummins 2000; Jozefowicz
            et al. 2015). Ignored if `chrono_steps` is given.
    """

    gate_signs: ClassVar[tuple[int, ...]] = (-1, 1, 0, 0)

    def __init__(self, units: int, *, unit_forget_bias: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias or self.chrono_steps is not None:
            return bias
        return add_to_blocks(bias, self.unit_bias()[self.biased])

    def unit_bias(self) -> tuple[int, ...]:
        """Return the number that `unit_forget_bias` adds to each block of the kernel."""
        return tuple(max(sign, 0) for sign in self.gate_signs)


def add_to_blocks(bias: Tensor, amounts: Sequence[float]) -> Tensor:
    """Divide a bias into as many blocks as there are amounts, and add one amount to each."""
    block = bias.shape[0] // len(amounts)
    return bias + ops.repeat(ops.convert_to_tensor(amounts, bias.dtype), block)
