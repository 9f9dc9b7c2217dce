"""Base classes of the cells with a linear recurrence, and of their layers."""

from typing import Any

from keras import ops

from gradkeeper.zoo._typing import Activation, State, StepOutput, Tensor
from gradkeeper.zoo.cells._scan import (
    Coefficients,
    linear_scan,
    merge_chunks,
    split_into_chunks,
)
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


class LinearCell(RecurrentCell):
    """Base class of cells with a linear recurrence s_t = a_t * s_{t-1} + b_t.

    a_t and b_t depend only on the inputs, so that many states of a sequence can be computed at once
    (`ScanLayer`).

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
        """Compute a and b of one step [batch, width] or of several [batch, steps, width]."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients`.")

    def output(self, s: Tensor, projected: Tensor) -> Tensor:
        """Compute the output from s, for one step or for several."""
        return s

    def pack(self, states: State) -> Tensor:
        """Return s as one tensor, from the states of the layer."""
        return states[0]

    def unpack(self, s: Tensor, output: Tensor) -> list[Tensor]:
        """Return the states of the layer, from s and the output."""
        return [ops.cast(s, output.dtype)]

    def multiply(self, a: Tensor, s: Tensor) -> Tensor:
        """Compute the product of a and s, or of a and a."""
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
        a, b = self.coefficients(projected)
        if training and self.recurrent_dropout:
            a, b = self.drop_coefficients((a, b), states)
        s = self.multiply(a, ops.cast(self.pack(states), b.dtype)) + b
        output = ops.cast(self.output(s, projected), projected.dtype)
        return output, self.unpack(s, output)

    def _mask_like(self, a: Tensor, states: State) -> Tensor:
        """Return the recurrent dropout mask in a shape that broadcasts to a."""
        mask = ops.cast(self.get_recurrent_dropout_mask(states[0]), a.dtype)
        mask = ops.tile(mask, [1, a.shape[-1] // self.units])
        return mask if len(a.shape) == 2 else ops.expand_dims(mask, 1)


class MinimalCell(LinearCell):
    """Base class of cells with h_t = (1 - w) * h_{t-1} + w * g(n), with a weight w in (0, 1).

    In half precision, the computation is in float32.

    Args:
        log_space: whether g(v) is v + 0.5 for v >= 0 and sigmoid(v) otherwise. If False,
            g(v) = v.
    """

    def __init__(self, units: int, *, log_space: bool = True, **options: Any) -> None:
        super().__init__(units, **options)
        self.log_space = log_space

    def widen(self, projected: Tensor) -> Tensor:
        """Cast to at least float32."""
        return projected if "64" in str(projected.dtype) else ops.cast(projected, "float32")

    def weighted(self, weight: Tensor, candidate: Tensor) -> Coefficients:
        """Compute a and b from w, and from n before the activation."""
        n = self.activation(candidate)
        if self.log_space:
            n = ops.where(n >= 0, n + 0.5, ops.sigmoid(n))
        return 1 - weight, weight * n


class ScanLayer(CellLayer):
    """Base class of layers of a `LinearCell`, parallel in time.

    The sequence is split into chunks of about sqrt(time) / 2 steps. The layer computes the first
    step of all chunks at once, then the second, and so on (`linear_scan`), so that the number of
    sequential steps grows with the square root of the sequence's length. The outputs are equal to
    those of the loop, up to rounding. The layer runs the loop instead with `unroll`, or if the
    length is unknown when the model is traced.
    """

    def inner_loop(
        self, sequences: Tensor, initial_state: State, mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        time = sequences.shape[1]
        if self.unroll or time is None:
            return super().inner_loop(sequences, initial_state, mask, training)
        cell: LinearCell = self.cell
        prepared = cell.prepare(sequences, training)
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if self.go_backwards:
            prepared = ops.flip(prepared, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        project = cell.projector()
        projected = [project(each) for each in split_into_chunks(prepared)]
        steps = [cell.coefficients(each) for each in projected]
        if training and cell.recurrent_dropout:
            steps = [cell.drop_coefficients(each, initial_state) for each in steps]
        if mask is not None:
            chunks = split_into_chunks(ops.expand_dims(ops.cast(mask, "int32"), -1))
            masks = [ops.cast(each, "bool") for each in chunks]
            steps = [
                _where(*each, cell.identity_like(each[1]))
                for each in zip(masks, steps, strict=True)
            ]
        s = linear_scan(cell.multiply, steps, cell.pack(initial_state))
        outputs = [
            ops.cast(cell.output(*each), each[1].dtype) for each in zip(s, projected, strict=True)
        ]
        if mask is not None:
            outputs = _last_unmasked(outputs, masks)
        last = (time - 1) % len(steps)
        last_output = outputs[last][:, -1]
        states = cell.unpack(s[last][:, -1], last_output)
        if mask is not None and self.zero_output_for_mask:
            outputs = [
                ops.where(each, output, ops.zeros_like(output))
                for each, output in zip(masks, outputs, strict=True)
            ]
            last_output = outputs[last][:, -1]
        return last_output, merge_chunks(outputs, time), states


def _where(mask: Tensor, one: Coefficients, other: Coefficients) -> Coefficients:
    return ops.where(mask, one[0], other[0]), ops.where(mask, one[1], other[1])


def _last_unmasked(outputs: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """Replace the outputs of masked steps by the last unmasked output, or zeros if none."""
    steps = [
        _where(
            mask, (ops.zeros_like(output), output), (ops.ones_like(output), ops.zeros_like(output))
        )
        for mask, output in zip(masks, outputs, strict=True)
    ]
    return linear_scan(ops.multiply, steps, ops.zeros_like(outputs[0][:, 0]))
