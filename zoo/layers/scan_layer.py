"""Base class of the layers that compute all states of a sequence in parallel."""

from typing import Any

from keras import ops

from gradkeeper.zoo._scan import prefixes
from gradkeeper.zoo.cells.linear_cell import LinearCell
from gradkeeper.zoo.layers.cell_layer import CellLayer


class ScanLayer(CellLayer):
    """Base class of layers of a `LinearCell`, parallel in time.

    One associative scan computes all states. Its number of rounds grows with the logarithm of the
    sequence's length (Blelloch 1990; for recurrent networks Martin, Cundy 2018, arXiv 1709.04057).
    The outputs are equal to those of the loop, up to rounding. The layer runs the loop instead
    with `unroll`, or if the length is unknown when the model is traced.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        if self.unroll or sequences.shape[1] is None:
            return super().inner_loop(sequences, initial_state, mask, training)
        cell: LinearCell = self.cell
        projected = cell.projector()(cell.prepare(sequences, training))
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if self.go_backwards:
            projected = ops.flip(projected, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        element = cell.coefficients(projected)
        if training and cell.recurrent_dropout:
            element = cell.dropped(element, initial_state)
        if mask is not None:
            there = ops.expand_dims(ops.cast(mask, "bool"), -1)
            pairs = zip(element, cell.idle(element), strict=True)
            element = tuple(ops.where(there, one, other) for one, other in pairs)
        a, b = element
        first = cell.after((a[:, 0], b[:, 0]), cell.join(initial_state))
        b = ops.concatenate([ops.expand_dims(first, 1), b[:, 1:]], axis=1)
        states = cell.state(prefixes(cell.combine, (a, b))[1])
        outputs = ops.cast(cell.read(states, projected), projected.dtype)
        if mask is not None:
            outputs = self._as_before(outputs, mask)
        last = cell.part(states[:, -1], outputs[:, -1])
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(there, outputs, ops.zeros_like(outputs))
        return outputs[:, -1], outputs, last

    def _as_before(self, outputs: Any, mask: Any) -> Any:
        """Replace the outputs of masked steps by the last unmasked output, or zeros if none."""
        steps = ops.arange(1, outputs.shape[1] + 1)
        numbers = ops.where(mask, steps, 0)
        (last,) = prefixes(lambda one, other: (ops.maximum(one[0], other[0]),), (numbers,))
        padded = ops.pad(outputs, [(0, 0), (1, 0), (0, 0)])
        return ops.take_along_axis(padded, ops.expand_dims(last, -1), axis=1)
