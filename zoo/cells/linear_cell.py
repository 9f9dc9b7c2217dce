"""Base classes of the cells with a linear recurrence, and of their layers."""

from typing import Any, TypeAlias

from keras import ops

from gradkeeper.zoo._typing import Activation, State, StepOutput, Tensor
from gradkeeper.zoo.cells._scan import associative_scan
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell

# The coefficients (a, b) of one step, or of several consecutive steps combined.
Coefficients: TypeAlias = tuple[Tensor, Tensor]

# exp(-1e30) is 0 in every float type, and sums of -1e30 over a sequence are finite in float32.
_LOG_OF_ZERO = -1e30
_LEAST = 1e-30


class LinearCell(RecurrentCell):
    """Base class of cells with a linear recurrence s_t = a_t * s_{t-1} + b_t.

    a_t and b_t depend only on the inputs, so that all states of a sequence can be computed in
    parallel (`ScanLayer`). Two consecutive steps are equal to one step with
    (a_2 * a_1, a_2 * b_1 + b_2), and this combination is associative.

    A subclass sets `gates` and defines `coefficients`. If the output is not s, it also overrides
    `output`. If s is not one tensor [batch, units], it overrides `pack` and `unpack`. There is no
    recurrent kernel. The options `recurrent_initializer`, `recurrent_regularizer` and
    `recurrent_constraint` apply to the weights of a_t, if there are any.
    """

    def __init__(self, units: int, *, activation: Activation = "linear", **options: Any) -> None:
        super().__init__(units, activation=activation, **options)

    def recurrent_shape(self) -> None:
        """Return None, as the cell has no recurrent kernel."""

    def coefficients(self, projected: Tensor) -> Coefficients:
        """Compute a and b of one step [batch, width] or of a sequence [batch, time, width]."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients`.")

    def output(self, s: Tensor, projected: Tensor) -> Tensor:
        """Compute the output from s, for one step or for all."""
        return s

    def pack(self, states: State) -> Tensor:
        """Return s as one tensor, from the states of the layer."""
        return states[0]

    def unpack(self, s: Tensor, output: Tensor) -> list[Tensor]:
        """Return the states of the layer, from s and the output."""
        return [output]

    def combine(self, first: Coefficients, second: Coefficients) -> Coefficients:
        """Combine two consecutive steps into one."""
        (a1, b1), (a2, b2) = first, second
        return self.multiply(a2, a1), self.multiply(a2, b1) + b2

    def advance(self, coefficients: Coefficients, s: Tensor) -> Tensor:
        """Compute s after the step, in the representation of b."""
        a, b = coefficients
        return self.multiply(a, s) + b

    def decode(self, b: Tensor) -> Tensor:
        """Convert the representation of b to that of s."""
        return b

    def multiply(self, a: Tensor, s: Tensor) -> Tensor:
        return a * s

    def identity_like(self, coefficients: Coefficients) -> Coefficients:
        """Return coefficients of the same shape that do not change s."""
        a, b = coefficients
        return ops.ones_like(a), ops.zeros_like(b)

    def drop_coefficients(self, coefficients: Coefficients, states: State) -> Coefficients:
        """Apply the sequence's recurrent dropout mask to s before each step."""
        a, b = coefficients
        return a * self._mask_like(a, states), b

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        coefficients = self.coefficients(projected)
        if training and self.recurrent_dropout:
            coefficients = self.drop_coefficients(coefficients, states)
        s = self.decode(self.advance(coefficients, self.pack(states)))
        output = ops.cast(self.output(s, projected), projected.dtype)
        return output, self.unpack(s, output)

    def _mask_like(self, a: Tensor, states: State) -> Tensor:
        """Return the recurrent dropout mask in a shape that broadcasts to a."""
        mask = ops.cast(self.get_recurrent_dropout_mask(states[0]), a.dtype)
        mask = ops.tile(mask, [1, a.shape[-1] // self.units])
        return mask if len(a.shape) == 2 else ops.expand_dims(mask, 1)


class LogSpaceCell(LinearCell):
    """Base class of linear cells with positive a, b and s, where a and b are stored as logarithms.

    With logarithms, products of many a_t neither underflow nor lose digits. In half precision, the
    computation is in float32.

    Args:
        log_space: whether to compute in logarithms. If False, the cell computes as `LinearCell`.
    """

    def __init__(self, units: int, *, log_space: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.log_space = log_space

    def widen(self, projected: Tensor) -> Tensor:
        """Cast to at least float32."""
        return projected if "64" in str(projected.dtype) else ops.cast(projected, "float32")

    def log_candidate(self, value: Tensor) -> Tensor:
        """Compute log g(v), with the positive g(v) = v + 0.5 for v >= 0, sigmoid(v) otherwise."""
        positive = ops.log(ops.relu(value) + 0.5)
        return ops.where(value >= 0, positive, -ops.softplus(-value))

    def combine(self, first: Coefficients, second: Coefficients) -> Coefficients:
        if not self.log_space:
            return super().combine(first, second)
        (a1, b1), (a2, b2) = first, second
        return a1 + a2, ops.logaddexp(a2 + b1, b2)

    def advance(self, coefficients: Coefficients, s: Tensor) -> Tensor:
        a, b = coefficients
        s = ops.cast(s, a.dtype)
        if not self.log_space:
            return super().advance(coefficients, s)
        return ops.logaddexp(a + ops.log(ops.maximum(s, _LEAST)), b)

    def decode(self, b: Tensor) -> Tensor:
        return ops.exp(b) if self.log_space else b

    def identity_like(self, coefficients: Coefficients) -> Coefficients:
        if not self.log_space:
            return super().identity_like(coefficients)
        a, b = coefficients
        return ops.zeros_like(a), ops.full_like(b, _LOG_OF_ZERO)

    def drop_coefficients(self, coefficients: Coefficients, states: State) -> Coefficients:
        if not self.log_space:
            return super().drop_coefficients(coefficients, states)
        a, b = coefficients
        mask = self._mask_like(a, states)
        return ops.where(mask > 0, a + ops.log(ops.maximum(mask, _LEAST)), _LOG_OF_ZERO), b


class ScanLayer(CellLayer):
    """Base class of layers of a `LinearCell`, parallel in time.

    One associative scan computes all states. Its number of rounds grows with the logarithm of the
    sequence's length (Blelloch 1990; for recurrent networks Martin, Cundy 2018, arXiv 1709.04057).
    The outputs are equal to those of the loop, up to rounding. The layer runs the loop instead
    with `unroll`, or if the length is unknown when the model is traced.
    """

    def inner_loop(
        self, sequences: Tensor, initial_state: State, mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        if self.unroll or sequences.shape[1] is None:
            return super().inner_loop(sequences, initial_state, mask, training)
        cell: LinearCell = self.cell
        projected = cell.projector()(cell.prepare(sequences, training))
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if self.go_backwards:
            projected = ops.flip(projected, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        a, b = cell.coefficients(projected)
        if training and cell.recurrent_dropout:
            a, b = cell.drop_coefficients((a, b), initial_state)
        if mask is not None:
            unmasked = ops.expand_dims(ops.cast(mask, "bool"), -1)
            same_a, same_b = cell.identity_like((a, b))
            a, b = ops.where(unmasked, a, same_a), ops.where(unmasked, b, same_b)
        first = cell.advance((a[:, 0], b[:, 0]), cell.pack(initial_state))
        b = ops.concatenate([ops.expand_dims(first, 1), b[:, 1:]], axis=1)
        s = cell.decode(associative_scan(cell.combine, (a, b))[1])
        outputs = ops.cast(cell.output(s, projected), projected.dtype)
        if mask is not None:
            outputs = _last_unmasked(outputs, mask)
        states = cell.unpack(s[:, -1], outputs[:, -1])
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(unmasked, outputs, ops.zeros_like(outputs))
        return outputs[:, -1], outputs, states


def _last_unmasked(outputs: Tensor, mask: Tensor) -> Tensor:
    """Replace the outputs of masked steps by the last unmasked output, or zeros if none."""
    steps = ops.arange(1, outputs.shape[1] + 1)
    numbers = ops.where(mask, steps, 0)
    (last,) = associative_scan(lambda one, other: (ops.maximum(one[0], other[0]),), (numbers,))
    padded = ops.pad(outputs, [(0, 0), (1, 0), (0, 0)])
    return ops.take_along_axis(padded, ops.expand_dims(last, -1), axis=1)
